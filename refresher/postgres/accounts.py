"""The stored accounts, as one replica works them."""

from time import monotonic

from refresher.domain.clocks import Clock
from refresher.domain.pacing import Pace
from refresher.postgres.app_rate import AppRate
from refresher.postgres.claims import Claims
from refresher.postgres.database import Pool
from refresher.postgres.leases import Leases
from refresher.postgres.sealing import Sealer


class Accounts(Claims, Leases, AppRate):
    """Claims, leases and the app's rate: all that the flow needs, as one value.

    Raises `DatabaseUnavailable`.

    `managed`: we renew access tokens, so an account wakes for its token, too.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        replica: str,
        pace: Pace,
        managed: bool = False,
        sealer: Sealer | None = None,
        clock: Clock = monotonic,
    ) -> None:
        Claims.__init__(
            self,
            pool,
            replica=replica,
            pace=pace,
            managed=managed,
            sealer=sealer or Sealer(()),
            clock=clock,
        )
        Leases.__init__(self, pool, lease_seconds=pace.lease_seconds, managed=managed)
        AppRate.__init__(self, pool, replica=replica)
