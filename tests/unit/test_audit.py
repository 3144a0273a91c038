from tests.audit import _PROBE, CONSTRAINTS, Findings


def test_what_was_passed_over_is_not_counted_as_audited():
    document = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": []},
            {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1"}, {"id": "CVE-2"}]},
            {"name": "c", "skip_reason": "not found"},
        ]
    }
    assert Findings.of(document) == Findings(2, 1, {"b==2": ["PYSEC-1", "CVE-2"]})


def test_the_probe_is_among_the_pins():
    assert f"\n{_PROBE}==" in CONSTRAINTS.read_text()
