"""A pickle that makes a folder when it is read carelessly."""

import os
from pathlib import Path


class Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
