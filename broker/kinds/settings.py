"""The whole configuration of a process: the settings of `broker.base.settings`, and the connections of every kind."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, create_model, model_validator

from broker.base.settings import Settings
from broker.kinds import folders
from broker.kinds.values import ConnectionSetting

SETTINGS: dict[str, ConnectionSetting] = {
    name: module.SETTING for name, module in folders.modules("connection").items()
}


class _Checked(Settings):
    @model_validator(mode="after")
    def _connections(self) -> Self:
        for kind, setting in SETTINGS.items():
            try:
                setting.check(self.connections(kind), str(self.public_url).rstrip("/"))
            except ValueError as error:
                raise ValueError(f"{kind}_connections: {error}") from error
        return self


_FIELDS: dict[str, Any] = {
    f"{kind}_connections": (
        dict[str, setting.model],  # type: ignore[name-defined]  # known at run time only
        Field(default_factory=dict, description=setting.description),
    )
    for kind, setting in SETTINGS.items()
}
AllSettings: type[Settings] = create_model("Settings", __base__=_Checked, **_FIELDS)


def load_settings(env_file: Any = None, **given: Any) -> Settings:
    """The settings as given, and the rest from `GUESTKEY_*` variables and an optional file of them.

    Raises:
        pydantic.ValidationError: a setting is missing or wrong.
    """
    return AllSettings(_env_file=env_file, **given)
