import warnings

from maskedclip_composer.callbacks.quiet import KNOWN, quiet_known_warnings


def test_only_the_known_messages_are_silenced():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet_known_warnings()
        for message in KNOWN:
            warnings.warn(f"{message} And more of it.", UserWarning, stacklevel=1)
        warnings.warn("No batches were trained", UserWarning, stacklevel=1)
        warnings.warn(f"Mind: {KNOWN[0]}", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["No batches were trained", f"Mind: {KNOWN[0]}"]
