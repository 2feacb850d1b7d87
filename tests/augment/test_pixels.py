"""What a picture shows, whatever the kind of its file."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from ciper.augment.adapters import as_tensor
from ciper.augment.pixels import picture_pixels, square


def saved(picture, kind, **options):
    """The picture after a way through a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Image.open(file)


def colors(picture):
    """Red, green and blue of each pixel of the first row."""
    return [tuple(x) for x in picture_pixels(picture)[:, 0].T.tolist()]


RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 1, WHITE),
        ("L", 77, (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 9), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), RED),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("HSV", (0, 255, 255), RED),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 127), (255, 128, 128)),
        ("RGBa", (127, 0, 0, 127), (255, 128, 128)),
        ("LA", (0, 0), WHITE),
        ("LA", (100, 255), (100, 100, 100)),
        ("La", (0, 127), (128, 128, 128)),
    ],
)
def test_a_pixel_of_every_mode_has_its_color(mode, pixel, expected):
    assert colors(Image.new(mode, (1, 1), pixel)) == [expected]


def test_lab_is_the_color_that_it_measures():
    (found,) = colors(Image.new("LAB", (1, 1), (255, 128, 128)))
    assert found == pytest.approx(WHITE, abs=1)


def test_clear_places_of_a_palette_are_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    for kind in ("PNG", "GIF"):
        found = saved(picture, kind, transparency=1)
        assert colors(found) == [RED, WHITE]
    alpha = saved(picture, "PNG", transparency=bytes([255, 0]))
    assert colors(alpha) == [RED, WHITE]
    both = picture.convert("PA")
    both.putpixel((1, 0), (1, 0))
    assert colors(both)[1] == WHITE


def test_a_color_that_a_file_calls_clear_is_white():
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), (0, 0, 9))
    found = saved(picture, "PNG", transparency=(0, 0, 9))
    assert colors(found) == [RED, WHITE]
    gray = saved(Image.new("L", (1, 1), 7), "PNG", transparency=7)
    assert colors(gray) == [WHITE]


# --- deep gray ---------------------------------------------------------------

RAMP = np.array([[0, 257, 2048, 4095, 32896, 65535]], np.uint16)
SHOWN = [0, 1, 8, 16, 128, 255]


def png(kind, bits, rows):
    """A PNG file whose rows are given as they stand in it."""

    def chunk(name, body):
        sum_ = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + sum_

    width = len(rows[0]) * 8 // bits // (3 if kind == 2 else 1)
    head = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + body))


def pgm(values):
    head = f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode()
    return Image.open(io.BytesIO(head + values.astype(">u2").tobytes()))


def deep(values, order):
    mode = "I;16" if order == "<" else "I;16B"
    shape = values.shape[::-1]
    content = values.astype(f"{order}u2").tobytes()
    return Image.frombytes(mode, shape, content)


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(lambda: deep(RAMP, "<"), id="little"),
        pytest.param(lambda: deep(RAMP, ">"), id="big"),
        pytest.param(lambda: saved(deep(RAMP, "<"), "TIFF"), id="TIFF"),
        pytest.param(lambda: saved(deep(RAMP, ">"), "TIFF"), id="big TIFF"),
        pytest.param(lambda: saved(deep(RAMP, "<"), "PNG"), id="PNG"),
        pytest.param(
            lambda: png(0, 16, [RAMP.astype(">u2").tobytes()]), id="raw PNG"
        ),
        pytest.param(lambda: pgm(RAMP), id="PGM"),
    ],
)
def test_sixteen_bits_of_gray_are_scaled_by_their_own_white(picture):
    found = picture_pixels(picture())
    assert found.shape == (3, 1, 6)
    assert found.tolist() == [[SHOWN]] * 3
    assert as_tensor(picture()).tolist() == [[SHOWN]] * 3


def tiff(bits, photometric, content, width):
    """A little-endian TIFF of one row of gray."""
    tags = [
        (256, 4, width),
        (257, 4, 1),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, 1),
        (279, 4, len(content)),
    ]
    rows = [struct.pack("<HHII", tag, kind, 1, x) for tag, kind, x in tags]
    content += b"\0" * (len(content) % 2)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    table = struct.pack("<H", len(rows)) + b"".join(rows) + b"\0" * 4
    return Image.open(io.BytesIO(start + content + table))


def test_a_tiff_of_twelve_bits_has_4095_as_white():
    found = picture_pixels(tiff(12, 1, b"\xff\xf8\x00\x00\x00\x00", 4))
    assert found[0].tolist() == [[255, 128, 0, 0]]


def test_a_tiff_whose_zero_is_white_is_turned_over():
    values = RAMP[:, [0, 4, 5]].astype("<u2").tobytes()
    found = picture_pixels(tiff(16, 0, values, 3))
    assert found[0].tolist() == [[255, 127, 0]]


@pytest.mark.parametrize("mode", ["I", "F"])
@pytest.mark.parametrize("door", [picture_pixels, as_tensor])
def test_gray_without_a_known_white_is_refused(mode, door):
    with pytest.raises(ValueError, match=r"has no known white \(mode"):
        door(Image.new(mode, (2, 2), 1))
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        door(saved(Image.new(mode, (2, 2), 1), "TIFF"))


def test_colors_of_sixteen_bits_keep_their_upper_eight():
    row = np.array([[65535, 0x8000, 0]], ">u2").tobytes()
    assert colors(png(2, 16, [row])) == [(255, 128, 0)]


# --- EXIF --------------------------------------------------------------------


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


CORNER = np.zeros((2, 3), np.uint8)
CORNER[0, 0] = 255  # upper left, before it is turned


@pytest.mark.parametrize(
    ("orientation", "shape", "place"),
    [
        *((1, (2, 3), (0, 0)), (2, (2, 3), (0, 2)), (3, (2, 3), (1, 2))),
        *((4, (2, 3), (1, 0)), (5, (3, 2), (0, 0)), (6, (3, 2), (0, 1))),
        *((7, (3, 2), (2, 1)), (8, (3, 2), (2, 0)), (9, (2, 3), (0, 0))),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_picture_is_turned_as_its_exif_says(
    orientation, shape, place, mode, kind
):
    picture = Image.fromarray(CORNER).convert(mode.replace("I;16", "L"))
    if mode == "I;16":
        picture = Image.fromarray(CORNER.astype(np.uint16) * 257)
    found = saved(picture, kind, exif=exif(orientation))
    found = picture_pixels(found)
    assert found.shape[1:] == shape
    assert found[0].nonzero().tolist() == [list(place)]


def test_a_camera_on_its_side_reaches_as_tensor_too():
    side = saved(Image.new("L", (30, 20), 9), "JPEG", exif=exif(6))
    assert as_tensor(side).shape == (1, 30, 20)
    side = saved(Image.new("RGB", (30, 20)), "JPEG", exif=exif(8))
    assert as_tensor(side).shape == (3, 30, 20)


@pytest.mark.parametrize(
    "damaged", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"]
)
def test_a_damaged_exif_does_not_cost_the_picture(damaged):
    found = saved(Image.new("RGB", (30, 20), RED), "PNG", exif=damaged)
    assert picture_pixels(found).shape == (3, 20, 30)


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue", "lime")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found = saved(
            frames[0], kind, save_all=True, append_images=frames[1:], **options
        )
        assert found.n_frames == 3
        assert colors(found)[0] == RED


def test_a_picture_is_left_as_it_was():
    picture = saved(Image.new("RGBA", (3, 2), RED), "PNG", exif=exif(6))
    picture_pixels(picture)
    assert (picture.mode, picture.size) == ("RGBA", (3, 2))


# --- squares -----------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(40, 60), (61, 40), (7, 100), (10, 160), (300, 31), (16, 16)]
)
@pytest.mark.parametrize("size", [16, 33])
def test_a_square_is_scaled_and_cut_in_the_middle_bit_for_bit(shape, size):
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *shape), generator=g, dtype=torch.uint8)
    expected = TF.resize(image, [size], antialias=True)
    expected = TF.center_crop(expected, [size, size])
    assert torch.equal(square(image, size), expected)


@pytest.mark.parametrize("shape", [(2, 301), (1, 400), (4, 101), (700, 40)])
@pytest.mark.parametrize("size", [8, 32])
def test_a_strip_is_scaled_as_if_it_were_whole(shape, size):
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *shape), generator=g, dtype=torch.uint8)
    expected = TF.resize(image, [size], antialias=True)
    expected = TF.center_crop(expected, [size, size])
    difference = square(image, size).int() - expected.int()
    assert difference.abs().max() <= 1


def test_a_strip_never_becomes_longer_than_sixteen_squares(monkeypatch):
    seen, resize = [], TF.resize
    monkeypatch.setattr(
        TF, "resize", lambda x, *a, **k: seen.append(x) or resize(x, *a, **k)
    )
    line = torch.zeros(3, 2, 60_000, dtype=torch.uint8)
    assert square(line, 224).shape == (3, 224, 224)
    assert [tuple(x.shape) for x in seen] == [(3, 2, 32)]
