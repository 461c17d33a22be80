"""``lyra-nli``: an NLI model that learns from the people who correct it."""

from __future__ import annotations

import os
import sys
import warnings

import click

from lyra_nli import __version__
from lyra_nli.cli.adapters import adapters
from lyra_nli.cli.calibration import calibrate, calibration
from lyra_nli.cli.canary import canary
from lyra_nli.cli.data import dataset, due
from lyra_nli.cli.database import db
from lyra_nli.cli.demo import demo
from lyra_nli.cli.environment import tune
from lyra_nli.cli.feedback import domains, reviews
from lyra_nli.cli.gate import gate
from lyra_nli.cli.mcp import mcp
from lyra_nli.cli.monitor import monitor
from lyra_nli.cli.reviews_io import enqueue, export_reviews, import_reviews
from lyra_nli.cli.serving import predict, serve
from lyra_nli.cli.shadow import shadow
from lyra_nli.cli.shadow_eval import shadow_eval
from lyra_nli.cli.status import status
from lyra_nli.cli.training import train
from lyra_nli.errors import LyraNliError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lyra-nli")
def cli() -> None:
    """Teach an NLI model from the people who correct it.

    Corrections in a database become a LoRA adapter that is proven better, registered, served,
    and rolled back. Start with `lyra-nli demo`, or `lyra-nli db init` and `lyra-nli import`.
    """


for command in (
    db,
    enqueue,
    import_reviews,
    export_reviews,
    dataset,
    due,
    train,
    gate,
    shadow_eval,
    shadow,
    canary,
    adapters,
    calibrate,
    calibration,
    serve,
    mcp,
    predict,
    status,
    monitor,
    demo,
    domains,
    reviews,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; an expected error is a message and an exit code, not a traceback."""
    tune()
    # Libraries that draw a bar for reading a local file, and warn about their own deprecations.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    try:
        code = cli.main(standalone_mode=False)
    except LyraNliError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone: `lyra-nli ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except click.Abort:
        click.echo("Interrupted; nothing half-done was kept.", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
