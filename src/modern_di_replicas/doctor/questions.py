"""The queries of the doctor. They are independent: if one fails, the others are still answered."""

import typing


SETTINGS: typing.Final = (
    "default_transaction_read_only",
    "hot_standby_feedback",
    "max_connections",
    "max_standby_streaming_delay",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "reserved_connections",
    "superuser_reserved_connections",
    "wal_keep_size",
)

IDENTITY: typing.Final = """
SELECT pg_is_in_recovery() AS in_recovery,
       current_database()::text AS database,
       pg_postmaster_start_time()::text AS started,
       current_setting('server_version') AS version,
       extract(epoch FROM clock_timestamp())::float8 AS clock
"""

SYSTEM: typing.Final = "SELECT system_identifier AS system FROM pg_control_system()"

WAL: typing.Final = """
SELECT (CASE WHEN in_recovery THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
             ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint AS lsn,
       CASE WHEN in_recovery THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                                           (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
       CASE WHEN in_recovery THEN pg_is_wal_replay_paused() ELSE false END AS replay_paused
FROM (SELECT pg_is_in_recovery() AS in_recovery) AS server
"""

CONFIGURATION: typing.Final = f"""
SELECT json_object_agg(name, setting)::text AS settings FROM pg_settings
WHERE name IN ({", ".join(f"'{name}'" for name in SETTINGS)})
"""  # noqa: S608  # names of ours

SLOTS: typing.Final = """
SELECT coalesce(json_agg(json_build_object(
           'name', slot_name, 'active', active, 'wal_status', coalesce(wal_status, 'unknown'),
           'retained', coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                     ELSE pg_current_wal_lsn() END - restart_lsn, 0)::bigint)), '[]')::text AS slots
FROM pg_replication_slots WHERE slot_type = 'physical'
"""

ACCESS: typing.Final = """
SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_statistics,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
       (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND application_name NOT LIKE '%-doctor') AS connections
"""

CONNECTION: typing.Final = """
SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS is_encrypted,
       inet_client_addr() IS NULL OR inet_client_addr() = inet_server_addr() AS is_local
"""

PROCESS: typing.Final = "SELECT pg_backend_pid() AS pid"

BUSY: typing.Final = "SELECT pg_sleep(0.3)"
