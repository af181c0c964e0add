"""What both programs count. The names are part of what operators rely on."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

APPENDED_BYTES: Final = Counter(
    "nightcap_collector_appended_bytes", "Bytes of capture files received and kept."
)
UPLOADS: Final = Counter(
    "nightcap_collector_requests", "Requests of sidecars by answer.", ["method", "code"]
)
DURABLE_SECONDS: Final = Histogram(
    "nightcap_collector_durable_seconds",
    "Time from an append to its fsync.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
CERTIFICATE_EXPIRY: Final = Gauge(
    "nightcap_certificate_expiry_timestamp_seconds",
    "When the serving certificate ends, seconds since the epoch; 0 without one.",
)
STORE_BYTES: Final = Gauge("nightcap_store_bytes", "Bytes of capture files in the store.")
STORE_FREE_BYTES: Final = Gauge("nightcap_store_free_bytes", "Bytes free on the store's volume.")
CAPTURES_REMOVED: Final = Counter(
    "nightcap_collector_captures_removed", "Captures whose files went because the object did."
)
STRAY_APPENDS: Final = Counter(
    "nightcap_store_stray_appends", "Objects removed that an append left and nobody was told of."
)
CAPTURES_GIVEN_UP: Final = Counter(
    "nightcap_collector_captures_given_up",
    "Finished captures whose files went because the store's limit was reached.",
)
ANSWERS: Final = Counter(
    "nightcap_files_requests", "Requests of people by answer.", ["method", "code"]
)
HANDED_OUT_BYTES: Final = Counter("nightcap_files_sent_bytes", "Bytes of capture files handed out.")
AUDIT_FAILURES: Final = Counter(
    "nightcap_files_audit_failures", "Audit records that the object store did not take."
)
AUDIT_RECORDS: Final = Counter("nightcap_files_audit_records", "Audit records written.", ["action"])
