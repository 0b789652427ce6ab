"""Data sets that are known to share photographs, from their own documentation. What is shared is for hashes to find."""

import re
from collections.abc import Iterable

RELATIONS = (
    ("eyeq", "eyepacs", "EyeQ is a part of EyePACS"),
    ("messidor", "messidor2", "MESSIDOR-2 holds 1,058 photographs of MESSIDOR"),
    ("riga", "messidor", "RIGA takes 460 photographs of MESSIDOR"),
    ("maples-dr", "messidor", "MAPLES-DR takes 198 photographs of MESSIDOR"),
    ("refuge", "refuge2", "REFUGE is a part of REFUGE2"),
    ("hrf", "hrf-av", "HRF and HRF-AV are the same photographs"),
    ("hrf", "hrf-seg+", "HRF and HRF-Seg+ are the same photographs"),
    ("hrf-av", "hrf-seg+", "HRF-AV and HRF-Seg+ are the same photographs"),
    ("reta", "idrid", "the 81 photographs of RETA are of IDRiD"),
    ("reyia", "fives", "REYIA holds parts of FIVES"),
    ("reyia", "grape", "REYIA holds parts of GRAPE"),
    ("reyia", "messidor", "REYIA holds parts of MESSIDOR"),
    ("odir200x3", "odir5k", "ODIR200x3 is a part of ODIR-5K"),
    ("20x3", "jsiec", "20x3 is a part of JSIEC"),
    ("airogs", "justraigs", "AIROGS and JustRAIGS come from one provider and may share photographs"),
    ("airogs", "eyepacs", "AIROGS and EyePACS come from one provider, as different collections"),
)


def hints(datasets: Iterable[str]) -> list[str]:
    """Say what is known of data sets that occur together; case and punctuation of their names do not count."""
    names = {_plain(name) for name in datasets}
    return [text for one, other, text in RELATIONS if {_plain(one), _plain(other)} <= names]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
