"""Builds: from a request and a tar to an image in the engine's own store, and nothing else left.

    intent → context unpacked → Dockerfile read and planned → images found or pulled, and brought to buildah
           → network → buildah build → its image taken over → named → everything of the build removed → intent ends

A build that dies with its engine is ended by the next one: its control group is killed, its folder removed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from holdfast import faults, log
from holdfast.builder import buildah, checks, context, dockerfile, handover, plan
from holdfast.builder.cache import Cache, CacheRecord
from holdfast.builder.failures import BuildFailed, failure
from holdfast.builder.model import BuildRequest
from holdfast.builder.networking import Network, networked
from holdfast.builder.transcript import Base, Transcript
from holdfast.errors import EngineError, InvalidParameter, NotFound, System
from holdfast.images import reference
from holdfast.images.files import remove_entry
from holdfast.images.platforms import parse_platform
from holdfast.images.progress import stream
from holdfast.images.skopeo import Credentials
from holdfast.locks import NamedLocks
from holdfast.runtime.spec import MASKED_PATHS

if TYPE_CHECKING:
    from holdfast.config import Config
    from holdfast.images.model import Image
    from holdfast.images.service import Images
    from holdfast.images.tarstream import Readable
    from holdfast.network.service import Network as Networks
    from holdfast.runtime.runtime import Runtime
    from holdfast.store import Store

logger = log.get(__name__)

Emit = Callable[[dict[str, Any]], object]

INTENT: Final = "build"
_CLOSE_S: Final = 15.0
_HUB: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


class Builds:
    """The build service. Calls block; errors are in Docker's words. Safe from any thread."""

    def __init__(self, config: Config, store: Store, images: Images, network: Networks, runtime: Runtime) -> None:
        """Build with these services; `restore` must be called before anything else."""
        self.namespace_of: Callable[[str], str] = _no_container
        """Takes a container's name and gives the path of its network namespace."""
        self._config = config
        self._intents = store.intents
        self._images = images
        self._network = network
        self._runtime = runtime
        self._folders = config.state_root / "builds"
        self._cache = Cache(config.state_root / "build-cache", self._folders)
        self._imports = NamedLocks()
        self._guard = threading.Lock()
        self._running: dict[str, threading.Event] = {}
        self._stops: list[threading.Event] = []
        self._ended = threading.Condition(self._guard)

    def restore(self) -> None:
        """End and remove what builds of a dead engine left. Raises OSError, System."""
        for intent in self._intents.open():
            if intent.kind == INTENT:
                logger.info("ending a build of an engine that died", extra={"build": intent.subject})
                buildah.end(self._cgroup(intent.subject))
                self._network.disconnect(intent.subject)
                self._network.remove_namespace(intent.subject)
                self._cache.note_leftovers()
                self._intents.end(intent.id)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._folders):
                remove_entry(self._folders, name)

    def build(self, request: BuildRequest, body: Readable, emit: Emit, stopped: threading.Event) -> str:
        """Build an image from the context in `body`; gives its id.

        Messages go to `emit` as Docker's classic builder sends them, a failure that comes after the first of them
        included. `stopped` ends the build. Raises EngineError before the first message, ConnectionError if the client
        went away. Source: Docker Engine API, operationId ImageBuild.
        """
        program = buildah.find()
        tags = [self._images.check_name(tag) for tag in request.tags]
        parse_platform(request.platform)
        build_id = secrets.token_hex(32)
        messages = _Messages(emit, quiet=request.quiet)
        with (
            self._listed(request, stopped),
            self._recorded(build_id) as folder,
            contextlib.ExitStack() as held,
        ):
            try:
                steps, ids = self._prepare(request, program, body, folder, messages, held)
                image_id = self._run(request, build_id, folder, steps, ids, messages, stopped)
                messages.result(image_id, steps, [self._named(image_id, tag) for tag in tags])
            except BuildFailed as error:
                messages.fail(error)
                return ""
            finally:
                self._clear_leftovers(folder)
        self._cache.limit()
        return image_id

    def cancel(self, build_id: str) -> None:
        """End the build that its client called so; one that is not there is no error."""
        with self._guard:
            stopped = self._running.get(build_id)
        if stopped is not None:
            stopped.set()

    def close(self) -> None:
        """End all builds and wait until they have cleared up; those that take too long are left to the next engine."""
        with self._ended:
            for stopped in self._stops:
                stopped.set()
            if not self._ended.wait_for(lambda: not self._stops, _CLOSE_S):
                logger.warning("builds are left to the next engine", extra={"builds": len(self._stops)})

    def usage(self) -> list[CacheRecord]:
        """Give what the build cache holds, the newest first. Raises System."""
        try:
            return self._cache.usage()
        except OSError as error:
            raise System(f"measure the build cache: {error}") from error

    def prune(self, *, until: float | None = None, keep_bytes: int = 0) -> tuple[list[str], int]:
        """Empty the build cache, see `Cache.prune`. Raises System."""
        try:
            return self._cache.prune(until=until, keep_bytes=keep_bytes)
        except OSError as error:
            raise System(f"prune the build cache: {error}") from error

    # -- steps ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _recorded(self, build_id: str) -> Iterator[Path]:
        """Give a build its folder, and take away everything of it at the end."""
        folder = self._folders / build_id
        with contextlib.ExitStack() as undo:
            intent = self._intents.begin(INTENT, build_id)
            undo.callback(self._intents.end, intent)
            faults.point("build-recorded")
            undo.callback(remove_entry, self._folders, build_id)
            try:
                for path in (folder, folder / "root", folder / "tmp"):
                    path.mkdir(mode=0o700, parents=True)
                undo.enter_context(self._cache.used())
            except OSError as error:
                raise System(f"build: {error}") from error
            yield folder

    @contextlib.contextmanager
    def _listed(self, request: BuildRequest, stopped: threading.Event) -> Iterator[None]:
        """Let `cancel` and `close` find a build."""
        with self._guard:
            self._stops.append(stopped)
            if request.build_id:
                self._running[request.build_id] = stopped
        try:
            yield
        finally:
            with self._ended:
                self._stops.remove(stopped)
                self._running.pop(request.build_id, None)
                self._ended.notify_all()

    def _prepare(
        self,
        request: BuildRequest,
        program: buildah.Buildah,
        body: Readable,
        folder: Path,
        messages: _Messages,
        held: contextlib.ExitStack,
    ) -> tuple[plan.Plan, dict[str, Image]]:
        """Unpack and read what came, and bring the images that it needs to buildah's store."""
        try:
            files = context.receive(body, folder)
        except ConnectionError:
            raise
        except OSError as error:
            raise System(f"receive build context: {error}") from error
        faults.point("build-context-received")
        read = dockerfile.parse(context.read_dockerfile(files, request.dockerfile), request.dockerfile)
        checks.check(read, heredocs=program.knows_heredocs)
        steps = plan.make_plan(read, request.target, request.arguments, request.labels)
        found: dict[str, Image] = {}
        for name in steps.images():
            try:
                found[name] = self._find(name, request, messages, held)
            except (NotFound, InvalidParameter, System) as error:
                messages.step(steps, steps.step_of(name))
                raise BuildFailed(str(error)) from error
        last = steps.stages[-1]
        if last.is_bare and not last.base and last.base_stage is None and not steps.labels:
            messages.step(steps, steps.step_count)
            messages.emit(stream(" ---> \n"))
            raise BuildFailed("No image was generated. Is your Dockerfile empty?")
        for image in found.values():
            self._bring(image, folder)
        (folder / "Dockerfile").write_text(
            steps.written({name: image.id for name, image in found.items()}), encoding="utf-8"
        )
        return steps, found

    def _find(self, name: str, request: BuildRequest, messages: _Messages, held: contextlib.ExitStack) -> Image:
        """Find an image here, or get it from its registry; it is held until the build has ended."""
        if not request.pull:
            try:
                return held.enter_context(self._images.held(name))
            except NotFound:
                pass
        wanted = reference.parse(name)
        credentials = _credentials_for(wanted.domain, request.credentials)
        image_id = self._images.registries.pull(
            name, platform=request.platform, credentials=credentials, progress=messages.emit
        )
        return held.enter_context(self._images.held(image_id))

    def _bring(self, image: Image, folder: Path) -> None:
        """Put a copy of an image into buildah's store, unless it is there."""
        with self._imports.hold(image.id):
            if self._cache.has_image(image.id):
                return
            with self._images.workspace() as workspace:
                self._images.lay_out(image, workspace / "image")
                shown = {"/image": (workspace / "image", False)}
                buildah.call(self._place(folder), self._program(), ["pull", "--quiet", "dir:/image"], shown=shown)

    def _run(
        self,
        request: BuildRequest,
        build_id: str,
        folder: Path,
        steps: plan.Plan,
        images: Mapping[str, Image],
        messages: _Messages,
        stopped: threading.Event,
    ) -> str:
        """Build, and take over the image; gives its id."""
        bases = {name: _base_of(image) for name, image in images.items()}
        transcript = Transcript(steps, bases, messages.emit, self._cache.whole_id)
        program, place = self._program(), self._place(folder)
        needed = any(base.triggers for base in bases.values()) or steps.runs_programs
        with networked(self._network, request, build_id, self.namespace_of, needed=needed) as joined:
            arguments = buildah.build_arguments(
                request, program, network=joined.mode, cgroup_parent=f"{place.cgroup}/run", hosts=joined.hosts
            )
            status = self._follow(place, program, arguments, folder, joined, transcript, stopped)
        if stopped.is_set():
            raise BuildFailed("build canceled")
        if status != 0 or not transcript.image_id:
            raise failure(transcript, runtime=self._runtime.facts.name, status=status)
        faults.point("build-made-not-taken")
        base = steps.base_of_result
        known = list((images[base].config.get("rootfs") or {}).get("diff_ids") or []) if base else []
        return self._take(f"sha256:{transcript.image_id}", folder, known)

    def _follow(
        self,
        place: buildah.Place,
        program: buildah.Runtime,
        arguments: Sequence[str],
        folder: Path,
        joined: Network,
        transcript: Transcript,
        stopped: threading.Event,
    ) -> int:
        shown = {
            buildah.CONTEXT: (folder / "context", False),
            buildah.DOCKERFILE: (folder / "Dockerfile", False),
        }
        files = {"/etc/resolv.conf": joined.resolv_conf, "/etc/hosts": joined.hosts_file}
        running = buildah.Call(place, program, arguments, shown, files, joined.namespace)
        faults.point("build-running")
        try:
            for kind, data in running.pieces(stopped.is_set):
                transcript.take(kind, data)
        except BaseException:
            running.kill()
            self._cache.note_leftovers()
            raise
        finally:
            status = running.finish()
        if status < 0 or stopped.is_set():
            self._cache.note_leftovers()
        transcript.end(failed=status != 0)
        return status

    def _clear_leftovers(self, folder: Path) -> None:
        """Remove the working containers of builds that were killed, unless another build runs; failing is logged."""
        if not self._cache.has_leftovers or not self._cache.is_alone():
            return
        try:
            buildah.call(self._place(folder), self._program(), ["rm", "--all"])
            self._cache.note_leftovers(there=False)
        except (EngineError, OSError) as error:
            logger.warning("working containers of builds stay", extra={"error": str(error)})

    def _take(self, image_id: str, folder: Path, known: Sequence[str]) -> str:
        """Bring an image from buildah's store into our own, unless it is there; `known` are diff ids of layers here."""
        try:
            return self._images.resolve(image_id).id
        except NotFound:
            pass
        try:
            return self._hand_over(image_id, folder, known)
        except System as error:
            if not known:
                raise
            logger.warning("image is taken over whole", extra={"image": image_id, "error": str(error)})
            return self._hand_over(image_id, folder, ())

    def _hand_over(self, image_id: str, folder: Path, known: Sequence[str]) -> str:
        with self._images.workspace() as workspace:
            out = workspace / "out"
            (out / "image").mkdir(parents=True)
            words = handover.push_arguments(image_id, f"{buildah.OUT}/image")
            with handover.known_layers(out / "image", known):
                buildah.call(self._place(folder), self._program(), words, shown={buildah.OUT: (out, True)})
            return self._images.take_in(out / "image", [], workspace)

    def _named(self, image_id: str, tag: str) -> str:
        named = reference.parse(tag)
        return self._images.tag(image_id, named.familiar_name, named.tag or "")

    def _place(self, folder: Path) -> buildah.Place:
        return buildah.Place(folder / "root", folder / "tmp", self._cache.store, self._cgroup(folder.name))

    def _program(self) -> buildah.Runtime:
        facts = self._runtime.facts
        masked = MASKED_PATHS + self._runtime.host_facts().thermal_throttle_paths
        return buildah.Runtime(facts.path, facts.hide_controllers, masked, _own_ulimits())

    def _cgroup(self, build_id: str) -> str:
        return f"{self._config.cgroup_parent}/build-{build_id[:12]}"


class _Messages:
    """The messages of one build; a quiet one keeps them back until it fails."""

    def __init__(self, emit: Emit, *, quiet: bool) -> None:
        self._emit = emit
        self._quiet = quiet
        self._kept: list[dict[str, Any]] = []

    def emit(self, message: dict[str, Any]) -> None:
        if self._quiet:
            self._kept = [*self._kept, message][-10_000:]
        else:
            self._emit(message)

    def step(self, steps: plan.Plan, number: int) -> None:
        """Announce a step that fails before buildah comes to it."""
        self.emit(stream(f"Step {number}/{steps.step_count} : {steps.text_of(number)}"))
        self.emit(stream("\n"))

    def result(self, image_id: str, steps: plan.Plan, names: Sequence[str]) -> None:
        if self._quiet:
            self._emit(stream(f"{image_id}\n"))
            return
        self._emit({"aux": {"ID": image_id}})
        if steps.unused_arguments:
            listed = " ".join(steps.unused_arguments)
            self._emit(stream(f"[Warning] One or more build-args [{listed}] were not consumed\n"))
        self._emit(stream(f"Successfully built {reference.short_id(image_id)}\n"))
        for name in names:
            self._emit(stream(f"Successfully tagged {name}\n"))

    def fail(self, error: BuildFailed) -> None:
        for message in self._kept:
            self._emit(message)
        detail = {**({"code": error.code} if error.code else {}), "message": str(error)}
        self._emit({"errorDetail": detail, "error": str(error)})


def _credentials_for(domain: str, given: Mapping[str, Credentials]) -> Credentials:
    """Pick the credentials of a registry; Docker Hub goes by its old address."""
    names = _HUB if domain == reference.DEFAULT_DOMAIN else (domain, f"https://{domain}", f"https://{domain}/")
    return next((given[name] for name in names if name in given), Credentials())


def _base_of(image: Image) -> Base:
    shell, left = image.defaults.get("Shell"), image.defaults.get("OnBuild")
    return Base(
        image.id, tuple(map(str, shell)) if isinstance(shell, list) else (), len(left) if isinstance(left, list) else 0
    )


def _own_ulimits() -> tuple[str, ...]:
    """The limits that programs of the engine start with, which containers have, too."""
    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    return tuple("{}={}:{}".format(name, *resource.getrlimit(kind)) for name, kind in kinds.items())


def _no_container(name: str) -> str:
    raise NotFound(f"No such container: {name}")
