"""What a cluster that refuses says to somebody who submits a job."""

import pytest
from ray.exceptions import AuthenticationError

from crane_ray.errors import ClusterError
from crane_ray.runtime.jobs import VerifyJob
from crane_ray.runtime.submission import SubmissionConfig, submit_job


def test_a_cluster_that_asks_for_a_token_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise AuthenticationError("Missing authentication token\n\nmany words")

    monkeypatch.setattr("crane_ray.runtime.job_client.JobSubmissionClient", refuse)
    submission = SubmissionConfig(address="http://head:8265")
    with pytest.raises(ClusterError, match=r"head:8265: the cluster asks for a token.*TOKEN"):
        submit_job("verify", VerifyJob(store="/s"), submission, print)
