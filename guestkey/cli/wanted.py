"""What a command or a program asks for, and of which kind it is where nobody named one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from guestkey.cli.api import Api, Json, segment
from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import mappings


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `kind` None: the dataset's own; `lifetime`: in seconds, None: as the rule allows.

    `public_key` is that of whoever brings a key of their own.
    """

    dataset: str
    kind: str | None = None
    slice: str | None = None
    action: str = "read"
    lifetime: int | None = None
    public_key: str | None = field(default=None, repr=False)

    def body(self) -> Json:
        """As the API takes it."""
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "slice": self.slice,
            "action": self.action,
            "lifetime": self.lifetime,
            "public_key": self.public_key,
        }


def settled(api: Api, wanted: Wanted) -> Wanted:
    """The same with its kind: the dataset's own, where none was named.

    Raises:
        Fault: it can be had as more than one.
    """
    if wanted.kind is not None:
        return wanted
    return replace(wanted, kind=_kind_of(api, wanted.dataset, wanted.slice, wanted.action))


def _kind_of(api: Api, dataset: str, slice_: str | None, action: str) -> str | None:
    """The kind of the dataset's slices, of the one that is named, or of the one that the rules open to the caller.

    None where it has no slice of that name: the gate says why there is nothing to get.

    Raises:
        Fault: they are of several kinds, and more than one is open.
    """
    path = f"/datasets/{segment(dataset)}"
    found = mappings(api.get(path).get("slices"))
    slices = {str(one.get("name")): str(one.get("kind")) for one in found if slice_ in (None, one.get("name"))}
    kinds = sorted(set(slices.values()))
    if len(kinds) <= 1:
        return kinds[0] if kinds else None
    opened = api.get(f"{path}/why", action=action).get("slice")
    if isinstance(opened, str) and opened in slices:
        return slices[opened]
    raise Fault(
        Code.USAGE,
        f"{dataset} has more than one kind of credential.",
        why=f"Its slices: {', '.join(f'{name} ({kind})' for name, kind in slices.items())}.",
        next_step=f"Name a slice (--slice {next(iter(slices))}) or a kind (--kind {kinds[0]}).",
    )
