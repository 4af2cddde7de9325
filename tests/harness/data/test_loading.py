"""Preparing batches: the same batches whatever the number of workers, and workers that end when they should."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler

from harness.data import loading
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor, ImageStore
from harness.data.loading import Loading, prepared_batches
from harness.errors import UserError
from tests.folders import byte_tokenizer


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Ten examples, every other one with an image, of which those with the number 3, 6 and 9 are too long."""
    found = []
    for number in range(10):
        image = tmp_path / f"{number}.png"
        Image.new("RGB", (9, 7), (20 * number, 0, 9)).save(image)
        prompt = "x" * (60 if number % 3 == 0 and number else number + 1)
        found.append(Example(str(number), prompt, "yes", image if number % 2 else None))
    return found


def collator_of(max_length: int = 40) -> Collator:
    return Collator(byte_tokenizer(), ImagePreprocessor(8), max_length)


def batches(
    examples: Sequence[Example], how: Loading, epochs: int = 2
) -> tuple[list[dict[str, Tensor | None]], list[set[str]]]:
    """The batches of some epochs, and what is known to be cut after each of them."""
    collator, generator = collator_of(), torch.Generator().manual_seed(5)
    order = BatchSampler(RandomSampler(examples, generator=generator), 4, drop_last=False)
    found, cut = [], []
    for _ in range(epochs):
        with prepared_batches(examples, order, collator, collator, how, generator) as epoch:
            for batch in epoch:
                found.append(dict(batch))
                cut.append(set(collator.cut))
    return found, cut


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_give_the_same_batches_in_the_same_order(examples, workers):
    (plain, plain_cut), (found, cut) = batches(examples, Loading()), batches(examples, Loading(workers))
    assert len(plain) == 6 and cut == plain_cut and cut[-1] == {"3", "6", "9"}
    for one, other in zip(plain, found, strict=True):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert tensor is not None and torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_the_same_error_with_and_without_workers(examples, workers):
    examples[5].image.write_bytes(b"no image")
    with (
        pytest.raises(UserError, match=r"^\S+5\.png: not a usable image \(cannot identify it as PNG or JPEG\)$"),
        prepared_batches(examples, [[0, 1], [4, 5]], collator_of(), collator_of(), Loading(workers)) as epoch,
    ):
        list(epoch)
    assert multiprocessing.active_children() == []


def test_leaving_early_ends_the_workers(examples):
    with (
        pytest.raises(ZeroDivisionError),
        prepared_batches(examples, [[n] for n in range(10)], collator_of(), collator_of(), Loading(2)) as epoch,
    ):
        next(epoch)
        assert len(multiprocessing.active_children()) == 2
        raise ZeroDivisionError
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_worker_is_its_parents_business(examples, signum, capfd):
    with prepared_batches(examples, [[n] for n in range(10)], collator_of(), collator_of(), Loading(1)) as epoch:
        next(epoch)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signum)
        assert len(list(epoch)) == 9
    assert multiprocessing.active_children() == []
    assert capfd.readouterr().err == ""


def test_a_killed_worker_is_one_line_that_says_what_to_do(examples):
    class Slow(Collator):
        def __call__(self, chosen):
            time.sleep(0.2)
            return super().__call__(chosen)

    slow = Slow(byte_tokenizer(), ImagePreprocessor(8), 40)
    with (
        pytest.raises(UserError, match=r"was killed \(.*\); .*fewer --workers$"),
        prepared_batches(examples, [[n] for n in range(10)], slow, slow, Loading(1)) as epoch,
    ):
        next(epoch)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        list(epoch)


def test_a_worker_that_is_killed_with_a_lock_keeps_nobody_waiting(examples):
    class Deadly(Collator):
        def __call__(self, chosen):
            frame = sys._getframe()
            while "done_event" not in frame.f_locals:  # the loop of torch's workers
                frame = frame.f_back
            done_event = frame.f_locals["done_event"]
            if hasattr(done_event, "_cond"):
                done_event._cond.acquire()
            os.kill(os.getpid(), signal.SIGKILL)

    deadly = Deadly(byte_tokenizer(), ImagePreprocessor(8), 40)
    with (
        pytest.raises(UserError, match="was killed"),
        prepared_batches(examples, [[n] for n in range(10)], deadly, deadly, Loading(2)) as epoch,
    ):
        list(epoch)
    assert multiprocessing.active_children() == []


def test_auto_leaves_the_cores_of_a_cpu_to_the_model(monkeypatch):
    monkeypatch.setattr(loading, "_shared_memory", lambda: 2**30)
    monkeypatch.setattr(loading, "usable_cores", lambda: 4)
    assert Loading.of(None, torch.device("cpu")) == Loading(0, pin=False)
    assert Loading.of(None, torch.device("cuda")) == Loading(3, pin=True)
    monkeypatch.setattr(loading, "usable_cores", lambda: 64)
    assert Loading.of(None, torch.device("cuda:1")) == Loading(8, pin=True)
    assert Loading.of(2, torch.device("cpu")) == Loading(2, pin=False)
    monkeypatch.setattr(loading, "_shared_memory", lambda: 2**40)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert Loading.of(None, torch.device("cuda")) == Loading(3, pin=True)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "128")
    assert Loading.of(None, torch.device("cuda")) == Loading(0, pin=True)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(loading, "_shared_memory", lambda: 64 * 10**6)
    assert Loading.of(None, torch.device("cuda")) == Loading(0, pin=True)


def test_workers_where_processes_cannot_be_forked_are_a_user_error(monkeypatch):
    monkeypatch.setattr(loading, "_CAN_FORK", False)
    assert Loading.of(None, torch.device("cuda")).workers == Loading.of(0, torch.device("cuda")).workers == 0
    with pytest.raises(UserError, match="--workers 2"):
        Loading.of(2, torch.device("cpu"))


def test_a_filled_store_decodes_no_file_again(examples):
    store = ImageStore(ImagePreprocessor(8))
    pictured = [example.image for example in examples if example.image]
    store.fill(pictured)
    before = [store.pixels(path) for path in pictured]
    for path in pictured:
        path.unlink()
    assert all(torch.equal(store.pixels(path), pixels) for path, pixels in zip(pictured, before, strict=True))


def test_a_bad_image_does_not_stop_the_filling_of_a_store(examples):
    store = ImageStore(ImagePreprocessor(8))
    examples[5].image.write_bytes(b"no image")
    store.fill(example.image for example in examples if example.image)
    assert len(store) == 4
    with pytest.raises(UserError, match=r"5\.png"):
        store.pixels(examples[5].image)


def test_a_store_that_is_too_small_is_not_filled(examples):
    store = ImageStore(ImagePreprocessor(8), max_bytes=4 * 3 * 8 * 8)
    store.fill(example.image for example in examples if example.image)
    assert len(store) == 0
