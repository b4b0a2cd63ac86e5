"""A dataset, a recipe -> batches for training and evaluation, in an order that is exact and can be resumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from imgdata import checks
from imgdata.backends.options import BackendName, DType, LoaderOptions, OnBad, or_default
from imgdata.dataset.columns import Values
from imgdata.errors import OptionError
from imgdata.extras import require_torch
from imgdata.loader.bad_images import BadImage, BadImages
from imgdata.loader.batches import Batches, Cursor, Lane
from imgdata.loader.buckets import (
    Buckets,
    BucketSummary,
    as_buckets,
    bucket_options,
    bucket_recipe,
    loader_order,
    summary,
)
from imgdata.loader.columns import BatchColumns, check_columns
from imgdata.loader.delivery import Engine
from imgdata.loader.description import loader_text
from imgdata.loader.frameworks import EpochSampler, refuse_other_ranks, refuse_several_workers
from imgdata.loader.opened import Given, Source, open_source
from imgdata.loader.planner import Planner
from imgdata.loader.remote_cache import usual_shuffle, with_cache
from imgdata.loader.shuffle_quality import check_shuffle
from imgdata.order.bucket_order import BucketOrder
from imgdata.order.epoch_order import MAX_EPOCH, Shuffle
from imgdata.order.ranks import rank_and_world
from imgdata.order.resume import Progress, advance, fingerprint, resume
from imgdata.recipes.presets import named
from imgdata.recipes.recipe import Recipe
from imgdata.sample import Batch, ClassName
from imgdata.storage.shard_state import CacheFacts
from imgdata.views.together import JoinClasses
from imgdata.views.view import View

if TYPE_CHECKING:
    import torch

    from imgdata.loader.mapped import MappedLoader

T = TypeVar("T")


class Loader:
    """Batches of a split: `for images, labels in loader`.

    Nothing runs before the first batch is asked for. Each `iter(loader)` is an epoch of its own: the one that was set
    or loaded; else the next one, once the iterator before has handed out a batch. Iterators don't affect each other,
    and the loader's state is that of the newest.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        *,
        split: str | None = None,
        batch_size: int,
        recipe: Recipe | str,
        device: "str | torch.device" = "cpu",
        backend: BackendName = "auto",
        shuffle: Shuffle | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool | None = None,
        view: str | None = None,
        version: int | None = None,
        weights: Sequence[float] | None = None,
        classes: JoinClasses = "joined",
        dtype: DType | None = None,
        channels_last: bool | None = None,
        threads: int | None = None,
        prefetch: int = 2,
        window_shards: int = 16,
        on_bad: OnBad | None = None,
        exact: bool = False,
        channels: int = 3,
        columns: Sequence[str] = (),
        joint: Sequence[str] = (),
        ignore_index: int = 255,
        buckets: Buckets | Sequence[tuple[int, int]] | None = None,
        dali_options: Mapping[str, object] | None = None,
        cache: str | float = "auto",
    ) -> None:
        """Open the dataset. Raises `OptionError`, `ShardError`; warns with `ShuffleWarning`.

        Args:
            source: A dataset's folder, a `Dataset`, or a `View`, which brings its split along; or a list of
                them, read as one.
            split: Name of the split, such as `train`.
            batch_size: Samples of a batch of this rank.
            recipe: What is done to each sample: a `Recipe` such as `imgdata.recipes.imagenet_train(224)`, the name of a
                ready one such as `imagenet_train`, or a JSON file. With `imgdata.recipes.views` a batch has several
                views of each sample, and `images` is a tuple of tensors.
            device: Device of images and labels: `cpu`, `cuda:1`, `mps`, or `cuda` for PyTorch's current GPU.
            backend: What makes the batches: `cpu`, `dali`, `resident`, or `auto` for the best one here. `repr` says
                which, and why.
            shuffle: `global` for training, `window` for disks and networks that dislike random reads, `none`; by
                default `window` for a dataset in an object store, else `global`.
            seed: Seed of the order and of all that is random in the recipe, 0 to 2^63-1.
            rank: Rank of this process; by default what torch.distributed or the environment says.
            world_size: Number of ranks; by default what torch.distributed or the environment says.
            drop_last: Leave out the last batch when it isn't full; by default when shuffled. Otherwise it is filled up
                with samples whose `valid` is false.
            view: A saved view's name, or steps such as `fraction=0.1 | balance`.
            version: An earlier version of a dataset that has grown, such as 1; by default the newest, until a state of
                an earlier one is loaded.
            weights: How much an epoch draws from each dataset of a list, relative to the others; it has as many draws
                as there are samples in all. Without weights each sample comes once.
            classes: Of several datasets: `joined`, the same where their ids are, or `separate`.
            dtype: `uint8`, `float16`, `bfloat16`, `float32`, or `uint16` with `channels=1`; by default float32 where
                the recipe has `Normalize`, else uint8. uint8 images are 0 to 255, not normalised; float ones are
                normalised, or 0 to 1 without it.
            channels_last: Memory in the order N, H, W, C; by default for uint8. The shape is `(N, C, H, W)` either way.
            threads: Threads that read and decode; by default one for each core of this process.
            prefetch: Batches in work behind the one that is waited for.
            window_shards: Shards of a window, with `shuffle="window"`.
            on_bad: What becomes of a sample whose image can't be decoded: another takes its place (`replace`, when
                training), it is black with `valid` false (`skip`, in evaluation), or an `ImageError` (`raise`).
            exact: Decode and resize by Pillow, the whole picture: the pixels of torchvision's operators on PIL images,
                bit for bit, for evaluations that must agree with others'. Two to three times as slow.
            channels: 3 for red, green and blue, 1 for gray, 4 with transparency. With 1 and another dtype than uint8
                pictures of 16 bits keep their depth: uint16 is 0 to 65535, floats are 0 to 1 before `Normalize`.
            columns: Names of columns of the dataset, such as `["caption", "weight"]`, for `batch.columns`: fields of
                the `json` members, and the index's `key`, `source`, `width`, `height` and others.
            joint: Names of what moves with the pictures, such as `["mask", "boxes", "keypoints"]`, for
                `batch.columns`: further images of the samples, and the fields `boxes` and `keypoints`. Crops, flips and
                all other moves are those of the picture.
            ignore_index: What masks have where they show nothing of the sample: in margins, and outside of a rotation.
            buckets: Shapes of batches, for pictures of several aspect ratios: `Buckets(area=224 * 224)`, or a list of
                (height, width). Each batch has one shape, the same on all ranks.
            dali_options: For the DALI backend: `hw_decoder_load`, `depth`, `crop_decode`, `preallocate`.
            cache: Where whole shards from an object store are kept: `disk`, in the cache folder, for all processes;
                `memory`, for this process; `off`, where nothing is kept and ranges are read; or gigabytes of the disk,
                such as 50, or `memory:8`. `auto` is `disk`, but `off` where a view needs little of the shards.
        """
        options = LoaderOptions(
            batch_size=batch_size,
            recipe=named(recipe) if isinstance(recipe, str) else recipe,
            device=str(device),
            backend=backend,
            shuffle=shuffle or usual_shuffle(source),
            seed=seed,
            drop_last=or_default(drop_last),
            dtype=or_default(dtype),
            channels_last=or_default(channels_last),
            threads=or_default(threads),
            prefetch=prefetch,
            window_shards=window_shards,
            on_bad=or_default(on_bad),
            exact=exact,
            channels=channels,
            columns=columns,  # type: ignore[arg-type]
            joint=joint,  # type: ignore[arg-type]
            ignore_index=ignore_index,
            dali_options=dali_options or {},
            cache=str(cache),
        )
        self._shuffle_open = shuffle is None
        given = Given(source, split, view, version, weights, classes, options.seed)
        self._open(given, options, rank=rank, world_size=world_size, buckets=as_buckets(buckets))

    @classmethod
    def from_options(
        cls,
        source: Source | Sequence[Source],
        options: LoaderOptions,
        *,
        split: str | None = None,
        view: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        shuffle_open: bool = False,
    ) -> "Loader":
        """Return a loader with these settings. Raises and warns as `Loader(...)` does.

        With `shuffle_open` a state of the other kind of shuffle may be loaded, whose order is taken then.
        """
        loader = cls.__new__(cls)
        loader._shuffle_open = shuffle_open
        loader._open(Given(source, split, view), options, rank=rank, world_size=world_size)
        return loader

    def _open(
        self,
        given: Given,
        options: LoaderOptions,
        *,
        rank: int | None,
        world_size: int | None,
        buckets: Buckets | None = None,
    ) -> None:
        require_torch("the loader")
        self._options = options = options if buckets is None else bucket_options(options)
        self.rank, self.world_size = rank_and_world(rank, world_size)
        self._rank_given = rank is not None
        self._given, opened = given, with_cache(open_source(given), options.cache, options.window_shards)
        order = loader_order(buckets, opened.view, options, self.world_size)
        self._planner = Planner(
            index=opened.split.index,
            view=opened.view,
            order=order,
            recipe=options.recipe,
            rank=self.rank,
            world_size=self.world_size,
        )
        # What `joint` names can't be mixed, whatever the labels are: it says so.
        if options.mixes and not options.joint and opened.view.targets is None and opened.view.has_unlabelled:
            raise OptionError("a recipe that mixes samples must have labels for all, got some without; use a view")
        if options.training:
            check_shuffle(opened.view, order)
        check_columns(opened.split, options.columns)
        self._columns = opened.split.columns
        self._buckets = buckets
        self._lanes = tuple(
            Lane(replace(self._planner, recipe=recipe), Engine(opened, replace(options, recipe=recipe)))
            for recipe in (
                [options.recipe] if buckets is None else [bucket_recipe(options.recipe, size) for size in buckets.sizes]
            )
        )
        self._engine = self._lanes[0].engine
        further = () if self._engine.joint is None else self._engine.joint.members
        self._bad = BadImages(opened.split, opened.max_pixels, [member.name for member in further])
        # Where the next iterator begins: set or loaded, or None when the newest one decides.
        self._start: Cursor | None = Cursor(epoch=0, samples=0)
        self._newest = self._start

    def __len__(self) -> int:
        """Return the batches of a whole epoch, the same on every rank; of an epoch that is resumed fewer are left."""
        return len(self._planner.order)

    def __iter__(self) -> Iterator[Batch]:
        self._engine.check_open()
        refuse_several_workers()
        if not self._rank_given:
            refuse_other_ranks(self.rank, self.world_size)
        self._newest = self._next_cursor()
        self._start = None
        return Batches(
            self._newest,
            lanes=self._lanes,
            bad=self._bad,
            on_bad=self._options.on_bad,
            prefetch=self._options.prefetch,
            columns=BatchColumns(self._columns, self._options.columns, self._engine),
            soft_classes=len(self.classes) if self._options.mixes else None,
        )

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        # The copy continues where this loader is.
        place = self._start or self._progress_cursor()
        return {**self.__dict__, "_start": place, "_newest": place}

    def __repr__(self) -> str:
        return loader_text(
            self._options, self._planner, self._buckets, self._lanes, epoch=self.epoch, bad=self._bad.summary
        )

    @property
    def epoch(self) -> int:
        """Epoch of the next batch."""
        return self._progress_cursor().epoch

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """Class index -> id and name."""
        return self._planner.view.classes

    @property
    def view(self) -> View:
        """The samples that an epoch is made of."""
        return self._planner.view

    @property
    def backend(self) -> BackendName:
        """Name of the backend that makes the batches: `cpu`, `dali` or `resident`."""
        return self._engine.kind.name

    @property
    def backend_description(self) -> str:
        """One line about the backend: its threads, what it keeps and where, why it was chosen."""
        return self._engine.description

    @property
    def device(self) -> str:
        """Device of images and labels, such as `cpu` or `cuda:0`."""
        return self._options.device

    @property
    def dtype(self) -> DType:
        """Type of the images' values."""
        return self._options.dtype

    @property
    def batch_size(self) -> int:
        """Samples of a batch of this rank."""
        return self._options.batch_size

    @property
    def dataset(self) -> View:
        """`view`, by the name that a `DataLoader` has for it: `len(loader.dataset)` samples, over all ranks."""
        return self.view

    @property
    def sampler(self) -> EpochSampler:
        """What PyTorch, Lightning and timm call `set_epoch` of: the loader's own."""
        return EpochSampler(self)

    @property
    def batch_sampler(self) -> None:
        """None, as of a `DataLoader` whose batches come ready: Lightning asks for it."""
        return None

    def column(self, name: str) -> Values:
        """Return a column of the samples of the view, one value for each row. Raises `OptionError`, `ShardError`."""
        return self._columns.values(name, self.view.position_N)

    @property
    def buckets(self) -> BucketSummary | None:
        """The shapes of batches, with samples, padding and what is cut off; None without buckets."""
        order = self._planner.order
        if self._buckets is None or not isinstance(order, BucketOrder):
            return None
        index, position_N = self._planner.index, self.view.position_N
        return summary(self._buckets, order, index.width_N[position_N], index.height_N[position_N])

    @property
    def bad(self) -> tuple[BadImage, ...]:
        """The images that this process could not use, each once."""
        return self._bad.records

    @property
    def cache_facts(self) -> CacheFacts | None:
        """What the cache of shards has done in this process so far; None where no shards are kept.

        Each loader counts its own batches; those that are made ahead are among them.
        """
        cache = self._engine.setup.split.cache
        return None if cache is None else cache.facts

    def set_epoch(self, epoch: int) -> None:
        """Let the next iterator begin with `epoch`: at its start, or where a state of it that was just loaded says."""
        if not checks.is_integer(epoch) or not 0 <= epoch < MAX_EPOCH:
            raise OptionError(f"epoch must be 0 to 2^32-1, got {epoch!r}")
        epoch = int(epoch)
        if self._start is None or self._start.epoch != epoch:
            self._start = Cursor(epoch=epoch, samples=0)

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is, after the last batch that was handed out: a few numbers, the same on all ranks."""
        cursor, seed = self._progress_cursor(), self._planner.order.seed
        return Progress(
            seed=seed, epoch=cursor.epoch, samples=cursor.samples, fingerprint=self._fingerprint()
        ).to_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iterator resume where `state` was taken, also with another batch size or number of ranks.

        Where the dataset has grown since, the loader goes back to the version that the state was taken of; where
        `shuffle` was left open, it takes that of the state. Raises
        `OptionError` for a state of other data, another view, order or seed.
        """
        if isinstance(state, Mapping) and state.get("fingerprint") != self._fingerprint():
            self._go_back(state.get("fingerprint"))
        place = resume(state, self._planner.order, self._fingerprint())
        self._start = Cursor(epoch=place.epoch, samples=place.samples)

    def map(self, function: "Callable[[Batch], T]") -> "MappedLoader[T]":
        """Return this loader with `function` of each batch, such as the dict or tuple that other code expects.

        It is a PyTorch `IterableDataset` as well, so that `DataLoader(loader.map(tuple), batch_size=None)` works where
        nothing but a `DataLoader` is taken. State and epoch are those of this loader.
        """
        from imgdata.loader.mapped import MappedLoader

        return MappedLoader(self, function)

    def close(self) -> None:
        """Stop all threads; the loader and its iterators can't be used any more. May be called twice."""
        for lane in self._lanes:
            lane.engine.close()

    def _go_back(self, wanted: object) -> None:
        """Read the version of the dataset, in the order, that makes the fingerprint `wanted`, where there is one."""
        orders = [self._options]
        if self._shuffle_open and self._options.shuffle != "none":
            orders.append(replace(self._options, shuffle="global" if self._options.shuffle == "window" else "window"))
        for given, options in ((given, one) for given in chain([self._given], self._given.earlier()) for one in orders):
            earlier = type(self).__new__(type(self))
            earlier._shuffle_open = self._shuffle_open
            # A batch may be larger than that version was, or a view mean nothing there.
            with suppress(OptionError):
                earlier._open(given, options, rank=self.rank, world_size=self.world_size, buckets=self._buckets)
                if earlier._fingerprint() == wanted:
                    self.close()
                    self.__dict__.update(earlier.__dict__, _rank_given=self._rank_given)
                    return

    def _next_cursor(self) -> Cursor:
        if self._start is not None:
            return Cursor(epoch=self._start.epoch, samples=self._start.samples)
        newest = self._newest
        if newest.taken:
            return Cursor(epoch=newest.epoch + 1, samples=0)
        return Cursor(epoch=newest.epoch, samples=newest.samples)

    def _progress_cursor(self) -> Cursor:
        """Return where the next batch would come from, as the start of an iterator."""
        if self._start is not None:
            return self._start
        newest = self._newest
        start = Progress(seed=self._planner.order.seed, epoch=newest.epoch, samples=newest.samples, fingerprint="")
        reached = advance(self._planner.order, start, newest.taken)
        return Cursor(epoch=reached.epoch, samples=reached.samples)

    def _fingerprint(self) -> str:
        return fingerprint(self._planner.view.fingerprint, self._planner.order)
