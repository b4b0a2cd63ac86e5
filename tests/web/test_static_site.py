"""`imgdata view --static`: a selection as a folder that needs neither a server nor Python."""

import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from imgdata_cli.main import cli
from PIL import Image

import imgdata
import imgdata.web.site
from imgdata.errors import OptionError, OutputError
from support.rawdata import class_folders
from support.viewers import rename_first_class


class Page(HTMLParser):
    """Elements of a page and what they name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(dataset: Path, site: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["view", str(dataset), "--static", str(site), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def page(site: Path) -> Page:
    return Page((site / "index.html").read_text("utf-8"))


def test_all_that_the_page_names_is_in_the_folder(zoo: Path, tmp_path: Path) -> None:
    done = write(zoo, tmp_path / "site")
    assert f"done 26 samples: {tmp_path / 'site' / 'index.html'}" in done.stderr
    found = page(tmp_path / "site")
    named = [one["src"] for one in found.all("img")] + [one["href"] for one in found.all("a")]
    files = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.jpg")}
    assert set(named) == files
    assert len(named) == 2 * 26
    for path in files:
        with Image.open(tmp_path / "site" / path) as image:
            image.load()
    for one in found.all("img"):
        assert one["alt"]
    assert found.all("link") == []


def test_a_browser_runs_only_what_the_page_itself_holds(zoo: Path, tmp_path: Path) -> None:
    write(zoo, tmp_path / "site", "--most", "1")
    (policy,) = [one["content"] for one in page(tmp_path / "site").all("meta") if one.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src 'self' file:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (["split=val"], 6),
        (["class=cat"], 12),
        (["class=cat", "split=val"], 2),
        (["text=dog"], 8),
        (["width_min=70", "width_max=10000"], None),
        (["sort=-width"], 26),
        (["format=jpeg"], 26),
    ],
)
def test_a_selection_is_what_the_viewer_shows_for_it(
    zoo: Path, tmp_path: Path, where: list[str], count: int | None
) -> None:
    write(zoo, tmp_path / "site", *(word for one in where for word in ("--where", one)))
    if count is None:
        count = sum(int((split.index.width_N >= 70).sum()) for split in imgdata.open(zoo).values())
    assert len(page(tmp_path / "site").all("img")) == count > 0


def test_only_the_first_of_a_large_selection_are_shown_and_it_says_so(zoo: Path, tmp_path: Path) -> None:
    done = write(zoo, tmp_path / "site", "--most", "5")
    assert "note the first 5 of 26 samples; --where selects, --most N takes more" in done.stderr
    text = (tmp_path / "site" / "index.html").read_text()
    assert "The first 5 of 26 samples." in text
    assert len(page(tmp_path / "site").all("img")) == 5


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("split=test", "split must be one of train, val, got 'test'"),
        ("class=horse", "--where class must be a class such as cat, dog, newt, or none, got 'horse'"),
        ("cat", "--where must be NAME=VALUE"),
        ("colour=red", "--where must be NAME=VALUE"),
        ("text=nothing is called that", "no sample is like that"),
        ("colour_min=3", "a column must be one of"),
    ],
)
def test_a_selection_without_meaning_leaves_nothing(zoo: Path, tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        write(zoo, tmp_path / "site", "--where", where)
    assert list(tmp_path.iterdir()) == []


def test_where_and_most_are_for_a_site_alone(zoo: Path) -> None:
    result = CliRunner().invoke(cli, ["view", str(zoo), "--where", "split=val"])
    assert str(result.exception) == "--where is for --static; in the browser filter on the page"


def test_an_earlier_export_is_replaced_whole(zoo: Path, tmp_path: Path) -> None:
    write(zoo, tmp_path / "site")
    write(zoo, tmp_path / "site", "--where", "split=val")
    assert len(list((tmp_path / "site").rglob("*.jpg"))) == 2 * 6
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize("names", [["notes.txt"], ["index.html"], [".git"]])
def test_a_folder_of_something_else_is_left_alone(zoo: Path, tmp_path: Path, names: list[str]) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name in names:
        (site / name).write_text("mine")
    with pytest.raises(OutputError, match="holds files that are no export of `imgdata view`; choose a new or empty"):
        write(zoo, site)
    assert sorted(path.name for path in site.iterdir()) == sorted(names)


def test_an_export_with_something_beside_it_is_left_alone(zoo: Path, tmp_path: Path) -> None:
    write(zoo, tmp_path / "site", "--most", "1")
    (tmp_path / "site" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files that are no export"):
        write(zoo, tmp_path / "site")


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_ends_in_between_leaves_what_was_there(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    write(zoo, tmp_path / "site", "--most", "3")
    before = (tmp_path / "site" / "index.html").read_bytes()
    with monkeypatch.context() as patch:

        def fail(*facts: object) -> bytes:
            raise fault

        patch.setattr(imgdata.web.site, "_page", fail)
        result = CliRunner().invoke(cli, ["view", str(zoo), "--static", str(tmp_path / "site")])
        assert result.exit_code != 0
    if isinstance(fault, OSError):
        assert "no space left on the disk" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (tmp_path / "site" / "index.html").read_bytes() == before


def test_pictures_that_can_not_be_shown_say_why_and_are_counted(zoo: Path, tmp_path: Path) -> None:
    out = shutil.copytree(zoo, tmp_path / "out")
    split = imgdata.open(out)["train"]
    lost = int((split.index.shard_N == split.index.shard_N[0]).sum())
    split.shards[0].unlink()
    done = write(out, tmp_path / "site", "--where", "split=train")
    assert f"note {lost} without a picture" in done.stderr
    text = (tmp_path / "site" / "index.html").read_text()
    assert text.count(": No such file or directory; copy the shard again") == lost
    assert len(page(tmp_path / "site").all("img")) == 20 - lost


HOSTILE = "<script>alert(1)<\x2fscript>\"'&\x1b[2J"


def test_names_of_classes_and_files_stay_text(tmp_path: Path) -> None:
    raw = class_folders(tmp_path / "raw", {"": 1})
    imgdata.shard(raw, tmp_path / "out", imgdata.ShardOptions(name="odd"), workers=1)
    rename_first_class(tmp_path / "out", HOSTILE)
    done = write(tmp_path / "out", tmp_path / "site")
    assert "\x1b" not in done.output
    text = (tmp_path / "site" / "index.html").read_text()
    assert "\x1b" not in text
    assert "<script>alert" not in text
    assert html.escape("<script>alert(1)", quote=False) in text
    assert len(page(tmp_path / "site").all("script")) == 1
