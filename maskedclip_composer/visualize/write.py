"""From a call's options to its files, and to MLflow where that is asked for."""

from pathlib import Path

from maskedclip_composer.visualize.files import Result, write_files
from maskedclip_composer.visualize.of_photographs import draw_photographs
from maskedclip_composer.visualize.of_table import draw_table, is_features
from maskedclip_composer.visualize.options import Options
from maskedclip_composer.visualize.subject import run_of


def write_pictures(options: Options) -> tuple[Result, list[Path]]:
    """Draw, and write KIND.png for each kind, pictures.json and index.html; return the result and the files.

    Raises:
        UserError: Something that was asked for cannot be drawn, or what it is to be drawn of cannot be read.
    """
    run = None
    if options.log:
        from maskedclip_composer.visualize.tracking import tracked_run  # MLflow takes seconds to import

        source = options.model or "a table of features"
        run = tracked_run(None if options.model is None else run_of(Path(options.model)), source)
    result = draw_table(options) if is_features(options.photos) else draw_photographs(options)
    files = write_files(options.out, result, options.command)
    if run is not None:
        from maskedclip_composer.visualize.tracking import log_pictures

        log_pictures(run, files)
    return result, files
