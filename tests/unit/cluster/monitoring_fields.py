"""The fields of the Prometheus operator's resources that its API reference lists.

Of a PodMonitor and a PrometheusRule (monitoring.coreos.com/v1), as far as such files use them.
"""

from typing import Any

from tests.unit.cluster.kuberay_fields import ANY, STRINGS

RELABELING: dict[str, Any] = {
    "sourceLabels": [str],
    "separator": str,
    "targetLabel": str,
    "regex": str,
    "modulus": int,
    "replacement": str,
    "action": str,
}
ENDPOINT: dict[str, Any] = {
    "port": str,
    "portNumber": int,
    "path": str,
    "scheme": str,
    "params": ANY,
    "interval": str,
    "scrapeTimeout": str,
    "honorLabels": bool,
    "honorTimestamps": bool,
    "relabelings": [RELABELING],
    "metricRelabelings": [RELABELING],
    "filterRunning": bool,
    "followRedirects": bool,
    "enableHttp2": bool,
    "authorization": ANY,
    "basicAuth": ANY,
    "oauth2": ANY,
    "tlsConfig": ANY,
}
POD_MONITOR: dict[str, Any] = {
    "jobLabel": str,
    "podTargetLabels": [str],
    "podMetricsEndpoints": [ENDPOINT],
    "selector": {"matchLabels": STRINGS, "matchExpressions": ANY},
    "namespaceSelector": {"any": bool, "matchNames": [str]},
    "sampleLimit": int,
    "targetLimit": int,
    "labelLimit": int,
    "attachMetadata": ANY,
    "scrapeClass": str,
}
RULE: dict[str, Any] = {
    "alert": str,
    "record": str,
    "expr": str,
    "for": str,
    "keep_firing_for": str,
    "labels": STRINGS,
    "annotations": STRINGS,
}
PROMETHEUS_RULE: dict[str, Any] = {
    "groups": [
        {
            "name": str,
            "interval": str,
            "labels": STRINGS,
            "query_offset": str,
            "limit": int,
            "partial_response_strategy": str,
            "rules": [RULE],
        }
    ]
}
KINDS = {"PodMonitor": POD_MONITOR, "PrometheusRule": PROMETHEUS_RULE}
