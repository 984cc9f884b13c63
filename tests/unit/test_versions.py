"""runbook.versions: which etcd and flannel do what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import versions
from runbook.versions import Version, parse

numbers = st.integers(0, 99_999)
any_version = st.builds(Version, numbers, numbers, numbers)
known_etcd = st.builds(Version, st.just(3), st.integers(3, 7), st.integers(0, 40))
known_flannel = st.builds(Version, st.just(0), st.integers(10, 28), st.integers(0, 9))


@given(any_version)
def test_parse_reads_back_what_str_writes(version: Version) -> None:
    """A version survives being written and read."""
    assert parse(str(version)) == version


@given(any_version, any_version)
def test_versions_are_ordered_by_number_not_by_text(one: Version, two: Version) -> None:
    """Versions compare number by number: 3.5.9 is before 3.5.21."""
    assert (parse(str(one)) < parse(str(two))) == (tuple(one) < tuple(two))
    assert parse("3.5.9") < parse("3.5.21")


@pytest.mark.parametrize(
    "text", ["", "3", "3.6", "3.6.16.1", "3.06.1", "3.6.x", "3.6.0-rc.1", " 3.6.1", "3.6.1\n", "-3.6.1", "\u0663.6.1"]
)
def test_parse_refuses_other_shapes(text: str) -> None:
    """A version is three plain numbers; anything else is refused with the text and the expected shape."""
    with pytest.raises(ValueError, match="three numbers are expected") as caught:
        parse(text)
    assert repr(text) in str(caught.value)


def test_parse_says_how_to_mend_a_leading_v() -> None:
    """A tag's name is the commonest slip, and the answer tells the mended form."""
    with pytest.raises(ValueError, match=r"without the v: 3\.6\.16"):
        parse("v3.6.16")


@pytest.mark.parametrize(
    ("version", "has_v2", "flag", "etcdutl", "api", "json", "arch"),
    [
        ("3.3.10", True, False, False, {"ETCDCTL_API": "3"}, False, True),
        ("3.4.23", True, True, False, {"ETCDCTL_API": "3"}, True, True),
        ("3.5.0", True, True, True, {"ETCDCTL_API": "3"}, True, False),
        ("3.5.21", True, True, True, {"ETCDCTL_API": "3"}, True, False),
        ("3.6.0", False, False, True, {}, True, False),
        ("3.6.16", False, False, True, {}, True, False),
        ("3.7.3", False, False, True, {}, True, False),
    ],
)
def test_etcd_rules(
    version: str, *, has_v2: bool, flag: bool, etcdutl: bool, api: dict[str, str], json: bool, arch: bool
) -> None:
    """Each etcd line does what its release notes and sources say."""
    assert versions.etcd_has_v2(version) is has_v2
    assert versions.etcd_v2_flag(version) is flag
    assert versions.has_etcdutl(version) is etcdutl
    assert versions.etcdctl_api_variable(version) == api
    assert versions.health_is_json(version) is json
    assert versions.unsupported_arch(version) is arch


FLAGS = {  # flag: known to 3.3.10, 3.4.23, 3.4.25, 3.5.4, 3.5.21, 3.6.16, 3.7.3
    "ca-file": "y------",
    "debug": "yyy----",
    "logger": "-yyyyyy",
    "log-outputs": "-yyyyyy",
    "log-format": "-----yy",
    "enable-grpc-gateway": "-yyyyyy",
    "enable-v2": "yyyyy--",
    "proxy": "yyyyy--",
    "discovery": "yyyyyy-",
    "discovery-token": "-----yy",
    "pre-vote": "-yyyyyy",
    "tls-min-version": "--y-yyy",
    "experimental-initial-corrupt-check": "yyyyyy-",
    "corrupt-check-time": "-----yy",
    "experimental-compact-hash-check-enabled": "----yy-",
    "experimental-watch-progress-notify-interval": "-yyyyy-",
    "feature-gates": "-----yy",
    "v2-deprecation": "---yyyy",
    "initial-cluster-state": "yyyyyyy",
    "listen-metrics-urls": "yyyyyyy",
}


@pytest.mark.parametrize(("flag", "row"), FLAGS.items())
def test_etcd_supports(flag: str, row: str) -> None:
    """A flag is known to exactly the versions of the flags table, backports included."""
    columns = ("3.3.10", "3.4.23", "3.4.25", "3.5.4", "3.5.21", "3.6.16", "3.7.3")
    assert "".join("y" if versions.etcd_supports(f"--{flag}", v) else "-" for v in columns) == row


def test_a_flag_without_a_rule_is_never_guessed() -> None:
    """Asking after a flag that no rule names is an error, not a silent no."""
    with pytest.raises(ValueError, match="--no-such"):
        versions.etcd_supports("no-such", "3.6.16")
    with pytest.raises(ValueError, match=r"3\.8\.0 is not known"):
        versions.etcd_supports("name", "3.8.0")


def test_flannel_rules() -> None:
    """Flannel changes from v2 to v3 at 0.18.0, wants br_netfilter from 0.26.0, and learnt some settings on the way."""
    assert [versions.flannel_api(v) for v in ("0.10.0", "0.17.0", "0.18.0", "0.26.7")] == [2, 2, 3, 3]
    assert [versions.needs_br_netfilter(v) for v in ("0.25.7", "0.26.0")] == [False, True]
    assert versions.backend_fault("VNI", "0.10.0") == ""
    assert "0.21.3" in versions.backend_fault("MTU", "0.21.2")
    assert versions.backend_fault("MTU", "0.21.3") == ""
    assert "0.12.0" in versions.backend_fault("Learning", "0.11.0")


@given(known_etcd, known_flannel)
def test_users_and_roles_need_the_v3_api_and_an_etcd_that_tells(etcd: Version, flannel: Version) -> None:
    """`flannel.rbac` works with flannel 0.18 and etcd 3.5 on; else both versions that would do are named."""
    fault = versions.rbac_fault(etcd, flannel)
    assert (fault == "") is (versions.flannel_api(flannel) == 3 and etcd >= (3, 5, 0))
    assert versions.has_auth_status(etcd) is (etcd >= (3, 5, 0))
    assert fault == "" or "is tried" in fault


@given(known_etcd, known_flannel)
def test_a_pair_works_when_they_share_an_api(etcd: Version, flannel: Version) -> None:
    """A pair of etcd and flannel works together exactly when etcd serves the one API that this flannel speaks."""
    served = {3, 2} if etcd.minor <= 5 else {3}
    fault = versions.pair_fault(etcd, flannel)
    assert (fault == "") == (versions.flannel_api(flannel) in served)
    assert not fault or (str(etcd) in fault and str(flannel) in fault)


def test_a_pair_fault_tells_versions_that_would_do() -> None:
    """The answer to a pair that can't work names both ways out, and each of them works."""
    fault = versions.pair_fault("3.6.16", "0.17.0")
    assert "flannel 0.18.0 or newer (0.26.7" in fault
    assert "etcd 3.3 to 3.5 (3.5.21" in fault
    assert versions.pair_fault("3.6.16", "0.26.7") == versions.pair_fault("3.5.21", "0.17.0") == ""


@pytest.mark.parametrize("version", ["2.3.8", "3.2.32", "3.8.0", "4.0.0"])
def test_etcd_lines_without_rules_are_refused(version: str) -> None:
    """An etcd that no rule was read for is refused with the lines that are known."""
    assert f"etcd {version} is not known" in versions.etcd_fault(version)
    assert "3.3 to 3.7" in versions.etcd_fault(version)


@given(known_etcd, known_flannel)
def test_known_lines_are_accepted(etcd: Version, flannel: Version) -> None:
    """Every release of a known line is accepted."""
    assert versions.etcd_fault(etcd) == versions.flannel_fault(flannel) == ""
    assert "not known" in versions.flannel_fault(Version(0, 9, 1))
    assert "not known" in versions.flannel_fault(Version(0, 29, 0))
