"""A name -> a network that follows timm's protocol, and what it takes; a file of weights -> the network filled.

Every network has `forward(x)` (logits, `(N, num_classes)`), `forward_features(x)`, `forward_head(x, pre_logits=False)`,
`get_classifier()`, `reset_classifier(num_classes)`, `num_classes` and `head_hidden_size`, the width of what
`forward_head(..., pre_logits=True)` gives.
"""

from imgdata.models.build import create_model
from imgdata.models.catalogue import RECOMMENDED, Recommended
from imgdata.models.inputs import ModelInput, model_input

__all__ = ["RECOMMENDED", "ModelInput", "Recommended", "create_model", "model_input"]
