"""A driver of cinder whose volumes have no content: what cinder itself keeps of them is all that there is."""

from typing import Any

from cinder import interface
from cinder.volume import driver


@interface.volumedriver  # type: ignore[untyped-decorator, unused-ignore]
class Driver(driver.VolumeDriver):  # type: ignore[misc]
    VERSION = "1"

    def check_for_setup_error(self) -> None:
        pass

    def create_volume(self, volume: Any) -> None:
        pass

    def delete_volume(self, volume: Any) -> None:
        pass

    def extend_volume(self, volume: Any, new_size: int) -> None:
        pass

    def ensure_export(self, context: Any, volume: Any) -> None:
        pass

    def create_export(self, context: Any, volume: Any, connector: Any) -> None:
        pass

    def remove_export(self, context: Any, volume: Any) -> None:
        pass

    def initialize_connection(self, volume: Any, connector: Any, **more: Any) -> dict[str, Any]:
        return {"driver_volume_type": "local", "data": {"device_path": f"/dev/{volume.id}"}}

    def terminate_connection(self, volume: Any, connector: Any, **more: Any) -> None:
        pass

    def _update_volume_stats(self) -> None:
        self._stats = {
            "volume_backend_name": "thin", "vendor_name": "none", "driver_version": self.VERSION,
            "storage_protocol": "local", "total_capacity_gb": 10_000, "free_capacity_gb": 10_000,
            "reserved_percentage": 0, "QoS_support": False,
        }  # fmt: skip
