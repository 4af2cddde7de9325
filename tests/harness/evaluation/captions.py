"""Reference captions of three images, and the fast metrics, for the tests of the caption scores."""

QUICK = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "SPICE")
REFERENCES = {
    "1": ["A red square and a blue disc.", "Two things: a square, a disc!"],
    "2": ["A dog (small) runs.", "The dog is running on grass."],
    "3": ["An empty street at night.", "A street at night without cars."],
}
