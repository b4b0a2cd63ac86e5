"""What an `Affine` or `Perspective` drew -> where the pixels come from.

Coordinates: the middle of the first pixel is (0.5, 0.5). What comes to (x, y) was at
((a x + b y + c) / (g x + h y + 1), (d x + e y + f) / (g x + h y + 1)).
"""

import numpy as np

from imgdata.augment.crops import Floats


def affine(value_R6: Floats, height: int, width: int) -> Floats:
    """Return (a, b, c, d, e, f), float64 `(R, 6)`, of angle, shift x and y, factor, and shear x and y in degrees.

    The inverse of: shear, rotate clockwise and scale about the middle, then shift. torchvision's
    `_get_inverse_affine_matrix`.
    """
    turn, shift_x, shift_y, scale, shear_x, shear_y = value_R6.T
    turn, shear_x, shear_y = np.radians(turn), np.radians(shear_x), np.radians(shear_y)
    middle_x, middle_y = width * 0.5, height * 0.5
    tangent = np.tan(shear_x)
    a, c = np.cos(turn - shear_y) / np.cos(shear_y), np.sin(turn - shear_y) / np.cos(shear_y)
    b, d = -(a * tangent + np.sin(turn)), np.cos(turn) - c * tangent
    m0, m1, m3, m4 = d / scale, -b / scale, -c / scale, a / scale
    m2 = middle_x - m0 * (middle_x + shift_x) - m1 * (middle_y + shift_y)
    m5 = middle_y - m3 * (middle_x + shift_x) - m4 * (middle_y + shift_y)
    return np.stack([m0, m1, m2, m3, m4, m5], axis=1)


def perspective(value_R8: Floats, height: int, width: int) -> Floats:
    """Return (a, b, c, d, e, f, g, h), float64 `(R, 8)`, of the places (x, y) to which the four corners move.

    Upper left, upper right, lower right, lower left; rounded to float32, as torchvision's `_get_perspective_coeffs`
    does. Where the corners lie on a line nothing moves.
    """
    from_42 = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
    rows = len(value_R8)
    matrix_R88, side_8 = np.zeros((rows, 8, 8)), from_42.reshape(-1)
    x_R4, y_R4 = value_R8[:, 0::2], value_R8[:, 1::2]
    for first, column in ((0, 0), (1, 3)):
        matrix_R88[:, first::2, column], matrix_R88[:, first::2, column + 1] = x_R4, y_R4
        matrix_R88[:, first::2, column + 2] = 1.0
        matrix_R88[:, first::2, 6] = -from_42[:, first] * x_R4
        matrix_R88[:, first::2, 7] = -from_42[:, first] * y_R4
    identity_8 = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    good_R = np.abs(np.linalg.det(matrix_R88)) > 1e-9
    solved_R8 = np.tile(identity_8, (rows, 1))
    if good_R.any():
        right_R81 = np.broadcast_to(side_8[:, None], (int(good_R.sum()), 8, 1))
        solved_R8[good_R] = np.linalg.solve(matrix_R88[good_R], right_R81)[:, :, 0]
    return solved_R8.astype(np.float32).astype(np.float64)
