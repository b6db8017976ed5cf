"""`python -m clusters images`: list, build, verify, push and clean."""

import argparse
import json
import sys
from collections.abc import Iterable

from clusters import progress
from clusters.errors import EXIT_FAILED, EXIT_HELD, UserError
from clusters.images.audit import audit, leftovers, remove, repair
from clusters.images.catalogue import GROUPS
from clusters.images.failures import GIB
from clusters.images.origins import OPTIONS, Origin
from clusters.images.registry import docker_client, remove_registry
from clusters.images.store import ImageStore

_MIB = 1 << 20


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `images` command with its sub-commands."""
    images = subparsers.add_parser("images", help="what runs on the cluster: list, build, verify, clean", description=__doc__)
    commands = images.add_subparsers(dest="images_command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="every image, its upstream name, and whether it is ready")
    _add_selection(listing)
    listing.add_argument("--json", action="store_true", help="print JSON, with the inputs each key is made from")
    listing.set_defaults(func=_list)

    build = commands.add_parser("build", help="build what is missing; a second call with the same inputs does nothing")
    _add_selection(build)
    build.add_argument("--jobs", type=_positive, default=1, metavar="N", help="Go builds at once (default 1: each uses every core by itself)")
    build.set_defaults(func=_build)

    verify = commands.add_parser("verify", help="recompute the digest of everything in the cache; exit 1 when something is damaged")
    verify.add_argument("--repair", action="store_true", help="remove what is damaged, so that `images build` makes it again")
    verify.set_defaults(func=_verify)

    push = commands.add_parser("push", help="push the workload images to a registry that an existing cluster pulls from")
    push.add_argument("prefix", metavar="PREFIX", help="host and path, such as registry.example.com/faasmesh; a run then takes --workload-images=PREFIX")
    push.set_defaults(func=_push)

    clean = commands.add_parser("clean", help="remove what no current input leads to")
    clean.add_argument("--all", action="store_true", help="remove the whole cache and the registry's container")
    clean.add_argument("--dry-run", action="store_true", help="only say what would go")
    clean.set_defaults(func=_clean)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"images or groups ({', '.join(GROUPS)}); all when none is given")
    parser.add_argument("--for", dest="groups", action="append", choices=GROUPS, default=[], help="a group, by option; may be repeated")
    parser.add_argument("--origin", choices=OPTIONS, default="auto",
                        help="published: pull upstream's; source: build all here; auto: published when a registry answers")
    parser.add_argument("--allow-unpinned", action="store_true", help="accept published images by tag where no digest is known")


def _list(args: argparse.Namespace) -> int:
    store = _store(args)
    builder = store.builder
    rows = []
    for image in builder.catalogue.select([*args.names, *args.groups]):
        here = image.reference.own or store.origin is Origin.SOURCE
        pin = store.versions.images[image.name]
        record = builder.built(image.name) if here else None
        state = ("built" if record else "missing") if here else "in node" if image.baked else "pinned" if pin.digest else "unpinned"
        rows.append({
            "name": image.name, "upstream": str(image.reference), "groups": list(image.groups), "origin": "source" if here else "published",
            "state": state, "key": builder.keys.image(image.name) if here else "", "digest": record.digest if record else pin.digest,
            "bytes": record.size if record else 0, "seconds": record.seconds if record else 0.0,
            "inputs": builder.keys.image_inputs(image) if here else {}, "packages": list(record.packages) if record else [],
        })
    if args.json:
        _print(json.dumps({"schema": 1, "origin": store.origin, "images": rows}, indent=1))
    else:
        _print(*_table(rows))
    return EXIT_HELD


def _build(args: argparse.Namespace) -> int:
    store = _store(args)
    with progress.step("images") as step:
        records = store.ensure(*args.names, *args.groups)
        step.note(f"{len(records)} ready, {sum(record.size for record in records) / _MIB:.0f} MiB in the local registry")
    return EXIT_HELD


def _verify(args: argparse.Namespace) -> int:
    store = ImageStore(Origin.SOURCE)
    with progress.step("images verify") as step:
        found = audit(store.cache)
        step.note(f"{found.entries} files, {found.size / GIB:.2f} GiB")
    for damage in found.damages:
        progress.say(f"damaged: {damage.what}: {damage.how}")
    if not found.damages:
        return EXIT_HELD
    if args.repair:
        repair(store.cache, found.damages)
        progress.say(f"removed {len(found.damages)} damaged entries; hint: python -m clusters images build")
    else:
        progress.say("hint: python -m clusters images verify --repair, then images build")
    return EXIT_FAILED


def _push(args: argparse.Namespace) -> int:
    _print(*ImageStore(Origin.SOURCE).push(args.prefix))
    return EXIT_HELD


def _clean(args: argparse.Namespace) -> int:
    store = ImageStore(Origin.SOURCE)
    if not args.dry_run and (pid := store.cache.busy()) is not None:
        raise UserError("images clean", expected="no build under way", seen=f"process {pid} building", hint="wait for it to end")
    found = leftovers(store.builder, everything=args.all)
    for leftover in found:
        progress.say(f"{'would remove' if args.dry_run else 'removing'} {leftover.what} ({leftover.size / _MIB:.1f} MiB)")
    if args.dry_run:
        progress.say(f"{sum(leftover.size for leftover in found) / GIB:.2f} GiB would be freed")
        return EXIT_HELD
    if args.all:
        with docker_client() as client:
            remove_registry(client, store.cache)
    swept = store.cache.sweep()
    progress.say(f"freed {remove(store.builder, found) / GIB:.2f} GiB" + (f", and {swept} folders of interrupted builds" if swept else ""))
    return EXIT_HELD


def _store(args: argparse.Namespace) -> ImageStore:
    return ImageStore(args.origin, jobs=getattr(args, "jobs", 1), allow_unpinned=args.allow_unpinned)


def _table(rows: Iterable[dict[str, object]]) -> Iterable[str]:
    for row in rows:
        size = f"{int(str(row['bytes'])) / _MIB:7.1f} MiB" if row["bytes"] else " " * 11
        yield f"{row['name']!s:<24} {row['state']!s:<9} {size}  {row['upstream']}"


def _print(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
