"""Objects in a bucket: any server that speaks S3 (Ceph, MinIO, Garage, Swift, AWS)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from hansa.engines.objects import check_key
from hansa.kernel import errors
from hansa.kernel.settings import ObjectSettings

T = TypeVar("T")
_CONNECTIONS = 32
_ABSENT = ("404", "NoSuchKey", "NotFound")


class S3Objects:
    """Objects below a prefix of a bucket. Who we are comes from where AWS's tools look for it."""

    def __init__(self, bucket: str, prefix: str, settings: ObjectSettings) -> None:
        self._bucket = bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self._client = _client(settings)

    async def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        await self._call(lambda: self._client.put_object(Bucket=self._bucket, Key=name, Body=data))

    async def get(self, key: str) -> bytes:
        name = self._name(key)
        return await self._call(lambda: bytes(self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()))

    async def has(self, key: str) -> bool:
        name = self._name(key)
        try:
            await self._call(lambda: self._client.head_object(Bucket=self._bucket, Key=name))
        except FileNotFoundError:
            return False
        return True

    async def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            await self._call(lambda: self._client.delete_object(Bucket=self._bucket, Key=name))
        except FileNotFoundError:
            return

    async def list(self, prefix: str) -> AsyncIterator[str]:
        where: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            page = await self._call(lambda: self._client.list_objects_v2(**where))
            for found in page.get("Contents", []):
                yield found["Key"].removeprefix(self._prefix)
            if not page.get("IsTruncated"):
                return
            where["ContinuationToken"] = page["NextContinuationToken"]

    async def check(self) -> None:
        """That the bucket is there and ours. Raises Fault ``kernel.storage_away`` or ``kernel.setting``."""
        try:
            await self._call(lambda: self._client.head_bucket(Bucket=self._bucket))
        except FileNotFoundError as error:
            raise errors.Fault(
                errors.SETTING, f"There is no bucket {self._bucket!r}.", hint="Make it first; objects.url names it."
            ) from error

    def free_bytes(self) -> int | None:
        return None

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    async def _call(self, work: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await asyncio.to_thread(work)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _ABSENT or code == "NoSuchBucket":
                raise FileNotFoundError(str(error)) from error
            raise _away(f"The object store refuses: {error}.") from error
        except (BotoCoreError, OSError) as error:
            raise _away(f"The object store does not answer: {error}.") from error


def _away(detail: str) -> errors.Fault:
    return errors.Fault(
        errors.STORAGE_AWAY,
        detail,
        hint="The operator's settings are [objects]: url, endpoint, region, profile; keys are AWS's.",
        retry_after_s=5,
    )


def _client(settings: ObjectSettings) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise errors.Fault(
            errors.SETTING, "objects.url is an s3 address, which needs boto3.", hint="pip install 'hansa[s3]'"
        ) from error
    from botocore.exceptions import BotoCoreError

    config = Config(
        max_pool_connections=_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=10,
        read_timeout=60,
        s3={"addressing_style": "path" if settings.path_style else "auto"},
        request_checksum_calculation="when_required",  # servers other than AWS's may not know the newer ones
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.session.Session(profile_name=settings.profile, region_name=settings.region)
        return session.client("s3", endpoint_url=settings.endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise errors.Fault(
            errors.SETTING, f"The object store cannot be used: {error}.", hint="Look at the settings [objects]."
        ) from error
