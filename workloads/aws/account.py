"""boto3 as it may be used here: towards one endpoint that is not AWS, with keys that AWS never gave."""

import functools
import ipaddress
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import requests
from botocore.config import Config

from workloads.aws import REGION

# Nothing of what a person has set up for AWS is read: no profile, no files, no certificates, no proxies.
_NOTHING_READ = {
    "profile": (None, None, None, None), "config_file": (None, None, os.devnull, None), "credentials_file": (None, None, os.devnull, None),
    "ca_bundle": (None, None, None, None),
}
# Calls are answered in milliseconds, but one that runs a function waits for it.
ANSWERS_WITHIN_S = 60.0


@dataclass(frozen=True)
class Keys:
    """An access key as moto gives them, or an invented one."""

    access_key: str
    secret_key: str = field(repr=False)


# What moto takes as long as it does not look, and refuses where it does.
INVENTED = Keys("AKIAINVENTED00000000", "invented")


@dataclass
class Account:
    """The account at one endpoint, with one user's keys; a client for each service is made once.

    Raises ValueError for an endpoint that is not an address of this machine or of a private network: AWS itself is never spoken to.
    """

    endpoint: str
    keys: Keys = INVENTED
    timeout_s: float = ANSWERS_WITHIN_S
    _clients: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an endpoint that could be AWS, and no endpoint, which is AWS."""
        host = urlsplit(self.endpoint).hostname or ""
        try:
            near = ipaddress.ip_address(host).is_private
        except ValueError:
            near = False
        if not self.endpoint.startswith("http://") or not near:
            raise ValueError(f"boto3 is given a loopback or private address of ours and never AWS's own, got {self.endpoint!r}")

    def client(self, service: str) -> Any:  # noqa: ANN401  # boto3 makes its classes as it runs
        """Return the client of a service. It asks once: a call that is repeated in silence would hide what the first came to."""
        if service not in self._clients:
            self._clients[service] = _session().client(
                service, endpoint_url=self.endpoint, aws_access_key_id=self.keys.access_key, aws_secret_access_key=self.keys.secret_key, region_name=REGION,
                config=Config(
                    # Finding: Cloud Map's client would ask data-127.0.0.1 for its instances.
                    inject_host_prefix=False,
                    retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=5, read_timeout=self.timeout_s, proxies={}, s3={"addressing_style": "path"},
                ),
            )
        return self._clients[service]

    def with_keys(self, keys: Keys) -> "Account":
        """Return the same account for another user."""
        return Account(self.endpoint, keys, self.timeout_s)

    def user(self, name: str, actions: Iterable[str]) -> Keys:
        """Return the keys of a new user who may do `actions` ("s3:PutObject", "*") and nothing else."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
        iam.put_user_policy(UserName=name, PolicyName="allowed", PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return Keys(made["AccessKeyId"], made["SecretAccessKey"])

    def role(self, name: str) -> str:
        """Return the ARN of a new role that Lambda may take, without which no function is made."""
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
        return str(self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"])

    @contextmanager
    def signatures_required(self) -> Iterator[None]:
        """Have every request of the block held to its signature and to what its user may do; moto looks at neither by itself.

        Finding: moto computes another signature than AWS's for a GET whose path has parameters, so of Lambda, App Mesh and Cloud Map
        nothing can be asked meanwhile; S3 is held to it rightly.
        """
        self._look_after("0")
        try:
            yield
        finally:
            self._look_after("inf")

    def _look_after(self, requests_: str) -> None:
        """Tell moto after how many requests it begins to look at their signatures."""
        asked = requests.post(f"{self.endpoint}/moto-api/reset-auth", data=requests_.encode(), timeout=self.timeout_s, proxies={"http": "", "https": ""})
        asked.raise_for_status()

    def close(self) -> None:
        """Give back the connections of its clients."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


@functools.cache
def _session() -> Any:  # noqa: ANN401  # boto3 publishes no types
    """Return the one session of this process: it reads what it knows of AWS's services from files, which takes longer than a call."""
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=_NOTHING_READ))
