from imgdata.extras import require_torch

require_torch("a trained network")
