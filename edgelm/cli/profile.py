"""``profile``: what was learned, its log, and how to take it back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from edgelm.cli.options import Common, catch_up, common
from edgelm.errors import ProfileError
from edgelm.learn.long_text import LEAST_TOKENS
from edgelm.learn.transfer import import_file, write_change
from edgelm.log.entry import CHAT, TEXT
from edgelm.log.folder import check_name, files_of
from edgelm.log.privacy import CLIP, DELTA
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.runtime import Engine, models_dir, profiles_dir


@click.group()
def profile() -> None:
    """What was learned: look at it, take it back, move it."""


@profile.command(name="list")
@common
def list_(common: Common) -> None:
    """All profiles."""
    rows = []
    for path in sorted(profiles_dir().glob("*.db")):
        size = sum(file.stat().st_size for file in files_of(path.parent, path.stem))
        rows.append({"name": path.stem, "bytes": size})
    common.emit({"profiles": rows}, "\n".join(f"{row['name']:20s} {row['bytes']:>12,} bytes" for row in rows))


@profile.command()
@common
def show(common: Common) -> None:
    """What a profile holds."""
    with Engine(common.options) as engine:
        catch_up(engine, common)
        entries = engine.adaptation.entries
        fields: dict[str, Any] = {
            "name": common.options.profile,
            "model": engine.model.name,
            "entries": len(entries),
            "said": sum(entry.kind == CHAT for entry in entries),
            "read": sum(entry.kind == TEXT for entry in entries),
            "characters": sum(len(entry.text) for entry in entries),
            "last_entry": entries[-1].id if entries else None,
            "bytes": engine.profile.n_bytes if engine.profile else 0,
            "path": str(engine.profile.path) if engine.profile else "",
            "weights_sha256": engine.adaptation.sha256,
            "layers": [{"name": layer.name, "sha256": layer.sha256} for layer in engine.model.layers],
        }
    shown = fields | {"layers": ", ".join(f"{layer['name']} ({layer['sha256'][:12]})" for layer in fields["layers"])}
    common.emit(fields, "\n".join(f"{name:15s} {value}" for name, value in shown.items()))


@profile.command()
@click.option("-n", "count", type=click.IntRange(1), help="The newest entries alone.")
@common
def log(count: int | None, common: Common) -> None:
    """The entries of the log, oldest first."""
    store = _open(common)
    if store.problem:
        common.note(store.problem, always=True)
    if store.layers:
        common.note("beneath the log: " + ", ".join(f"{layer.name} ({layer.sha256[:12]})" for layer in store.layers))
    for entry in store.entries[-count:] if count else store.entries:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        fields = {"id": entry.id, "time": when, "kind": entry.kind, "text": entry.text}
        fields |= {"conversation": entry.conversation} | ({"note": entry.note} if entry.note else {})
        said = " ".join(entry.text.split())
        shown = said if len(said) <= 100 or common.verbose else said[:99] + "…"
        note = f"  [{entry.note}]" if entry.note else ""
        common.emit(fields, f"{entry.id:6d}  {when}  {entry.kind:13s} {shown}{note}")


def _open(common: Common) -> Profile:
    """The log alone, of whatever model: no weights are needed to read it."""
    model = hub.load(common.options.model, models_dir())
    return Profile(profiles_dir(), common.options.profile, model, writable=False, any_base=True)


@profile.command()
@click.argument("entry_id", type=click.IntRange(0), metavar="ID")
@common
def rollback(entry_id: int, common: Common) -> None:
    """Take back everything learned after entry ID (0: everything)."""
    with Engine(common.options, writable=True) as engine:
        entries = engine.adaptation.entries
        if entry_id and entry_id not in {entry.id for entry in entries}:
            raise ProfileError(f"the log has no entry {entry_id}; see `edgelm profile log`")
        _remove(engine, [entry.id for entry in entries if entry.id > entry_id], common)


@profile.command()
@click.argument("entry_ids", type=click.IntRange(1), nargs=-1, metavar="ID...")
@click.option("--match", metavar="TEXT", help="Every entry that holds TEXT, whatever its case.")
@common
def forget(entry_ids: tuple[int, ...], match: str | None, common: Common) -> None:
    """Forget entries: as if they had never been said."""
    if not entry_ids and not (match and match.strip()):
        raise click.UsageError("give the IDs of entries, or --match TEXT")
    with Engine(common.options, writable=True) as engine:
        ids = set(entry_ids)
        if match:
            wanted = match.strip().casefold()
            ids |= {entry.id for entry in engine.adaptation.entries if wanted in entry.text.casefold()}
        _remove(engine, sorted(ids), common)


def _remove(engine: Engine, ids: list[int], common: Common) -> None:
    removed = engine.adaptation.remove(ids) if ids else []
    _replay(engine, common)
    fields = {"removed": len(removed), "entries": removed, "weights_sha256": engine.adaptation.sha256}
    text = f"{len(removed)} {'entry' if len(removed) == 1 else 'entries'} removed"
    if engine.profile is not None and (journal := engine.profile.still_in()):
        fields["still_in"] = journal
        text += " from the log; another program reads it, and until it ends and the profile is next opened "
        text += f"to learn, the words stay in {journal}"
    common.emit(fields, text)


def _replay(engine: Engine, common: Common) -> None:
    """The weights after what is left of the log, kept if they took a while to compute."""
    catch_up(engine, common)
    engine.adaptation.write_replayed_checkpoint(LEAST_TOKENS)


@profile.command()
@common
def rebase(common: Common) -> None:
    """Move a profile to this model: its log is learned anew."""
    with Engine(common.options, writable=True, any_base=True) as engine:
        assert engine.profile is not None
        before = engine.profile.base_name
        engine.adaptation.rebase()
        _replay(engine, common)
        fields = {
            "from": before, "to": engine.model.name, "entries": len(engine.adaptation.entries),
            "weights_sha256": engine.adaptation.sha256,
        }  # fmt: skip
    common.emit(fields, f"{fields['entries']} entries moved from {before} to {fields['to']}")


@profile.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--private", type=float, metavar="EPSILON", help="Hide whose change it is; smaller hides more.")
@common
def export(file: Path, private: float | None, common: Common) -> None:
    """Write the learned change of the weights, as safetensors.

    The file holds no text, but words can be read back from weights: how many sentences of the log are completed word
    for word by whoever has the file is measured and said. With --private the change is clipped and hidden in noise, so
    that the file is (EPSILON, 1e-6)-differentially private for the profile as a whole; an EPSILON so small that no
    useful model would be left is refused.
    """
    with Engine(common.options) as engine:
        catch_up(engine, common)
        fields = _export(engine, file, private)
    tried, said, base = (fields[name] for name in ("sentences", "completed", "completed_by_base"))
    text = f"{file}: {fields['bytes']:,} bytes. Words can be read back from weights: of {tried} sentences of the log "
    text += f"it completes {said} word for word, the base model {base}"
    if private is not None:
        text += f"; private with epsilon {private:g}, delta {fields['delta']:g}, for the profile as a whole"
    common.emit(fields, text)


def _export(engine: Engine, file: Path, epsilon: float | None) -> dict[str, Any]:
    from edgelm.measure import exposure

    changes = engine.learned_change(epsilon)
    exposed = exposure.compare(engine.model.folder, changes, engine.adaptation.entries, engine.model.layers)
    n_bytes = write_change(engine.adaptation, file, changes)
    privacy = {} if epsilon is None else {"epsilon": epsilon, "delta": DELTA, "clip": CLIP}
    return {"path": str(file), "bytes": n_bytes, **exposed, **privacy}


@profile.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@common
def import_(file: Path, common: Common) -> None:
    """Begin an empty profile with a change that was exported, or with a copy of a profile's .db file."""
    with Engine(common.options, writable=True) as engine:
        assert engine.profile is not None
        try:
            import_file(engine.adaptation, file)
            _replay(engine, common)
        except BaseException:
            # What was there before, or has come since, is somebody's: nothing goes that was not made under this lock.
            if engine.profile.is_new:
                engine.profile.discard()
            raise
        fields = {"entries": len(engine.adaptation.entries), "weights_sha256": engine.adaptation.sha256}
    common.emit(fields, f"profile {common.options.profile!r}: {fields['entries']} entries")


@profile.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def delete(yes: bool, common: Common) -> None:
    """Remove a profile and everything that was learned."""
    name = common.options.profile
    check_name(name)
    if not (profiles_dir() / f"{name}.db").exists():
        raise ProfileError(f"there is no profile {name!r}; see `edgelm profile list`")
    if not yes and not common.json:
        click.confirm(f"Delete profile {name!r} and everything it learned?", abort=True, err=True)
    Profile.delete(profiles_dir(), name)
    common.emit({"deleted": name}, f"profile {name!r} is deleted")
