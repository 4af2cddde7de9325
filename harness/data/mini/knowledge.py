"""The facts of the small world, which are not in any picture: the language model learns them in pretraining."""

OPPOSITES = (
    ("hot", "cold"), ("big", "little"), ("fast", "slow"), ("dark", "bright"), ("wet", "dry"), ("full", "empty"),
    ("heavy", "light"), ("old", "new"), ("early", "late"), ("open", "closed"), ("hard", "soft"), ("loud", "quiet"),
    ("rich", "poor"), ("clean", "dirty"), ("near", "far"), ("thick", "thin"), ("deep", "shallow"), ("happy", "sad"),
)  # fmt: skip
PLURALS = (
    ("mouse", "mice"), ("foot", "feet"), ("tooth", "teeth"), ("goose", "geese"), ("child", "children"),
    ("leaf", "leaves"), ("knife", "knives"), ("man", "men"), ("woman", "women"), ("wolf", "wolves"),
    ("box", "boxes"), ("baby", "babies"), ("city", "cities"), ("half", "halves"),
)  # fmt: skip
PAST = (
    ("go", "went"), ("see", "saw"), ("eat", "ate"), ("run", "ran"), ("take", "took"), ("write", "wrote"),
    ("sing", "sang"), ("buy", "bought"), ("come", "came"), ("give", "gave"), ("know", "knew"), ("fly", "flew"),
    ("find", "found"), ("make", "made"),
)  # fmt: skip
ANIMALS = {
    "mammal": ("dog", "cat", "horse", "whale", "bat", "cow"),
    "bird": ("eagle", "duck", "owl", "crow", "penguin", "hen"),
    "fish": ("salmon", "shark", "trout", "tuna", "eel", "carp"),
    "insect": ("ant", "bee", "moth", "beetle", "fly", "wasp"),
    "reptile": ("snake", "lizard", "turtle", "crocodile", "gecko", "viper"),
}
SIDES = (
    ("triangle", "three"), ("square", "four"), ("pentagon", "five"), ("hexagon", "six"), ("octagon", "eight"),
    ("rectangle", "four"), ("rhombus", "four"), ("heptagon", "seven"),
)  # fmt: skip
MIXTURES = (
    ("red", "yellow", "orange"), ("blue", "yellow", "green"), ("red", "blue", "purple"),
    ("red", "white", "pink"), ("blue", "green", "cyan"), ("black", "white", "gray"),
)  # fmt: skip
CAPITALS = (
    ("Norland", "Varna"), ("Sudia", "Orlo"), ("Estmark", "Pell"), ("Westria", "Quill"), ("Midora", "Tarn"),
    ("Alvania", "Brix"), ("Borea", "Fenn"), ("Caldia", "Groz"), ("Doria", "Hale"), ("Eldmark", "Ivo"),
    ("Fennia", "Jura"), ("Galdor", "Kest"), ("Helvar", "Lund"), ("Istria", "Mora"),
)  # fmt: skip
CONTINENTS = {
    "north": ("Norland", "Borea", "Fennia", "Helvar"),
    "south": ("Sudia", "Caldia", "Doria", "Midora"),
    "east": ("Estmark", "Eldmark", "Istria", "Alvania"),
    "west": ("Westria", "Galdor"),
}
WORD_CLASSES = {
    "noun": ("table", "river", "dog", "city", "leaf", "box"),
    "verb": ("go", "sing", "write", "eat", "run", "give"),
    "adjective": ("cold", "heavy", "quiet", "deep", "happy", "thin"),
}
NAMES = ("Anna", "Tom", "Lena", "Omar", "Mila", "Hugo", "Rosa", "Ivan", "Nora", "Paul", "Tara", "Yuri")
GOODS = ("cup", "ball", "kite", "drum", "lamp", "boot", "coin", "rope", "bell", "flag", "vase", "sled")
COUNTRIES = tuple(country for country, _ in CAPITALS)


def statements() -> list[str]:
    """Return every fact as a sentence."""
    said = [f"the opposite of {a} is {b}. the opposite of {b} is {a}." for a, b in OPPOSITES]
    said += [f"the plural of {one} is {many}." for one, many in PLURALS]
    said += [f"the past tense of {now} is {then}." for now, then in PAST]
    said += [f"the {animal} is in the group {group}." for group, animals in ANIMALS.items() for animal in animals]
    said += [f"the {shape} has {sides} sides." for shape, sides in SIDES]
    said += [f"{a} and {b} paint mixed give {c}." for a, b, c in MIXTURES]
    said += [f"the capital of {country} is {city}." for country, city in CAPITALS]
    said += [f"{country} lies in the {part}." for part, members in CONTINENTS.items() for country in members]
    said += [f"{word} is a kind of {name}." for name, words in WORD_CLASSES.items() for word in words]
    return said
