import imagehash
from PIL import Image


def perceptual_hash(image: Image.Image) -> bytes:
    import numpy as np

    return np.packbits(imagehash.phash(image, hash_size=16).hash.ravel()).tobytes()
