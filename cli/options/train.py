"""The settings of `imgdata train` as options of the command line, in sections; names are those of `TrainOptions`."""

from collections.abc import Mapping
from typing import Any

import click

from .backend import BackendType
from .common import CACHE_HELP

_ZERO = click.FloatRange(min=0)
_ONE = click.FloatRange(0, 1)
_COUNT = click.IntRange(min=1)


def _option(flag: str, text: str, **settings: Any) -> click.Option:
    # No defaults: what isn't given is left to `TrainOptions`, so that a resumed run can tell what was asked for.
    return click.Option([flag], help=text, default=None, **settings)


def _choice(flag: str, words: str, text: str) -> click.Option:
    return _option(flag, text, type=click.Choice(words.split("|")), metavar=words)


def _flag(flag: str, text: str) -> click.Option:
    return _option(flag, text, is_flag=True)


def flip_option() -> click.Option:
    """Return `--flip on|off|auto`; without a word behind it, it means on."""
    return _option(
        "--flip",
        "Mirror half of the pictures.  [auto: unless classes are digits or letters]",
        type=click.Choice(("on", "off", "auto")),
        metavar="on|off|auto",
        is_flag=False,
        flag_value="on",
    )


def cache_option() -> click.Option:
    """Return `--cache`: which shards of an object store are kept."""
    return _option("--cache", CACHE_HELP, metavar="auto|disk|memory|off|GB")


def no_flip_option() -> click.Option:
    """Return `--no-flip`, another way to write `--flip off`."""
    return _option("--no-flip", "Don't mirror pictures.", is_flag=True, hidden=True)


SECTIONS: Mapping[str, list[click.Option]] = {
    "Network": [
        _option("--model", "cnn, resnet9, any of timm's, or your own: package.module:function.", metavar="NETWORK"),
        _option("--size", "Side of the pictures in pixels.", type=click.IntRange(min=8)),
        _option("--weights", "Start with the weights in this file.", metavar="FILE"),
        _flag("--pretrained", "Start with the weights of timm's hub."),
        _flag("--freeze", "Train the classifier alone."),
        _option("--unfreeze-after", "Epochs with --freeze after which the backbone is trained too.", type=_COUNT),
        _option(
            "--freeze-batchnorm/--no-freeze-batchnorm",
            "Keep the weights' batch statistics.  [where a backbone is thawed and batches are small]",
            is_flag=True,
        ),
        _option("--backbone-lr", "Learning rate of the backbone, as a share of the classifier's.  [0.1]", type=_ONE),
        _option("--dropout", "Share of features dropped before the classifier.", type=_ONE),
        _option("--drop-path", "Share of residual branches left out.", type=_ONE),
    ],
    "Data": [
        _option("--split", "Train on this split.  [train]", metavar="NAME"),
        _option("--view", 'A saved view, or steps such as "fraction=0.1".', metavar="VIEW"),
        _option("--val-split", "Validate with this split.  [val; never test]", metavar="NAME"),
        _option("--val-view", "View of the validation split.", metavar="VIEW"),
        _option(
            "--hold-out",
            "Hold out so many training samples instead; below 1: that share.  [0.1 without a val split]",
            type=_ZERO,
        ),
        _flag("--balance", "Draw all classes equally often."),
        _choice("--class-weights", "none|balanced|effective", "Weigh classes in the loss."),
        _option("--weight-column", "Column with each sample's weight in the loss.", metavar="COLUMN"),
        _choice("--regression-loss", "mse|l1", "Loss of numbers to predict."),
    ],
    "Augmentation": [
        _option("--recipe", "imagenet, cifar, classifier, plain, or a .json file.  [auto]", metavar="NAME|FILE"),
        flip_option(),
        no_flip_option(),
        _choice("--policy", "none|randaugment|trivialaugment|autoaugment", "Random operations."),
        _option("--mixup", "Alpha of MixUp.", type=_ZERO),
        _option("--cutmix", "Alpha of CutMix.", type=_ZERO),
        _option("--erasing", "Probability of a rectangle painted over.", type=_ONE),
        _flag("--progressive", "Begin with smaller pictures."),
    ],
    "Course": [
        _option("--epochs", "Epochs.  [by the number of samples]", type=_COUNT),
        _option("--patience", "End after so many epochs without a better one.", type=_COUNT),
        _option("--batch-size", "Samples of a step, over all ranks.", type=_COUNT),
        _option("--accumulate", "Parts in which a batch is computed, to save memory.", type=_COUNT),
        _choice("--optimizer", "sgd|adamw", "Optimizer.  [by the network]"),
        _option("--lr", "Highest learning rate.", type=_ZERO),
        _choice("--curve", "cosine|onecycle|constant", "Course of the learning rate.  [cosine]"),
        _option("--warmup", "Epochs in which the learning rate rises from 0.", type=_ZERO),
        _option("--momentum", "Momentum of SGD.  [0.9]", type=_ONE),
        _option("--weight-decay", "Weight decay of all weights but norms and biases.", type=_ZERO),
        _option("--label-smoothing", "Share of a label that is spread over all classes.", type=_ONE),
        _option("--clip-grad", "Highest norm of the gradient.", type=_ZERO),
        _option("--ema", "Decay of an average of the weights, which is then validated.", type=_ONE),
        _flag("--flip-test", "Validate with the mirror image too."),
        _option("--seed", "Seed of weights, order and augmentation.  [0]", type=click.IntRange(min=0)),
    ],
    "Machine": [
        _option("--device", "auto, cpu, cuda or cuda:1.  [auto]", metavar="NAME"),
        _option("--backend", "What makes the batches.  [auto]", type=BackendType()),
        _option("--threads", "Threads that read and decode.  [all cores]", type=_COUNT),
        _option("--prefetch", "Batches made ahead.  [2]", type=_COUNT),
        cache_option(),
        _choice("--amp", "auto|none|bf16|fp16", "16-bit arithmetic.  [auto]"),
        _option("--channels-last/--channels-first", "Memory format.  [channels last]", is_flag=True),
        _flag("--sync-batchnorm", "Batch statistics over all GPUs."),
        _flag("--compile", "Compile the network."),
        _option("--checkpoint-steps", "Save after so many steps.  [500]", type=click.IntRange(min=0)),
        _flag("--tensorboard", "Write TensorBoard's events too."),
    ],
}


class SectionedCommand(click.Command):
    """A command whose help shows its settings in sections, after its other options."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += [option for options in SECTIONS.values() for option in options]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section on its own."""
        sectioned = {option.name for options in SECTIONS.values() for option in options}
        own = [one for one in self.get_params(ctx) if isinstance(one, click.Option) and one.name not in sectioned]
        sections: dict[str, list[click.Option]] = {"Options": own, **SECTIONS}
        for title, parameters in sections.items():
            records = [record for one in parameters if (record := one.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl(records)


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was set on the command line, as settings of `TrainOptions`."""
    found = {name: value for name, value in settings.items() if value is not None}
    flip = "off" if found.pop("no_flip", False) else found.pop("flip", "auto")
    if flip != "auto":
        found["flip"] = flip == "on"
    return found
