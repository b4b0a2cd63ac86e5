"""A network -> a moving average of its weights, as timm makes it."""

from typing import TYPE_CHECKING

from torch import nn

from imgdata.errors import MissingExtraError

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3


def moving_average(model: nn.Module, decay: float) -> "ModelEmaV3":
    """Return a moving average of `model`; the first steps count less than `decay` says.

    Raises `MissingExtraError`.
    """
    try:
        from timm.utils.model_ema import ModelEmaV3
    except ImportError as error:
        raise MissingExtraError("ema needs timm: pip install 'imgdata[train]'") from error
    return ModelEmaV3(model, decay=decay, use_warmup=True)
