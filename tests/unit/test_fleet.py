"""The simulation of a fleet: every policy does all the work, and turns keep those short who ask for little."""

from __future__ import annotations

from benchmarks.fleet import TENANTS, Tenant, compare, draw

SMALL = (Tenant("sweep", 1, 400, 400, 20, 9), Tenant("team", 3, 200, 100, 20), Tenant("somebody", 1, 10, 1, 5))


def test_a_sweep_holds_nobody_up_where_tenants_have_turns():
    found = {(row.tenant, row.policy): row for row in compare(SMALL, workers=10, hours=12, seed=1)}
    assert len(found) == 9
    assert found["somebody", "weighted turns"].p95 < 0.2 * found["somebody", "FIFO with priority"].p95
    assert found["team", "weighted turns"].median < found["team", "round robin"].median
    assert found["sweep", "FIFO with priority"].median < found["sweep", "weighted turns"].median


def test_a_draw_is_the_same_for_every_policy_and_by_its_seed_alone():
    assert draw(TENANTS, 24, 0) == draw(TENANTS, 24, 0)
    assert draw(TENANTS, 24, 0) != draw(TENANTS, 24, 1)
    assert len(draw(TENANTS, 24, 0)) == sum(tenant.jobs for tenant in TENANTS)
