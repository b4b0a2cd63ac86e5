"""Extensions of files and tar members -> whether they are images."""

IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
    *("jp2", "avif", "heic", "heif", "jxl", "jpe", "jfif", "mpo", "apng", "dib"),
)
"""Lower-case, without the dot, the commonest first. Images that can't be decoded are refused later, with the reason."""
IMAGE_SUFFIXES = frozenset(f".{extension}" for extension in IMAGE_EXTENSIONS)
"""The same with the dot."""
