"""Which kind of credential a dataset is had as, where nobody named one. Asked first: its key may have to be made."""

from __future__ import annotations

from broker.cli.api import Api, segment
from broker.cli.faults import Code, Fault
from broker.cli.output import mappings


def kind_of(api: Api, dataset: str, slice_: str | None, action: str) -> str | None:
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
