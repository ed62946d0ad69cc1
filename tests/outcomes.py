"""How a claim ends by the errors it met: each gets its meaning, as in the gate."""

from refresher.domain import conclude as domain
from refresher.domain.answers import understood


def conclude(claim, errors, chance, **facts):
    failures = [understood(error, claim.token) for error in errors]
    return domain.conclude(claim, failures, chance, **facts)


def conclude_token(claim, error, chance, retry, **facts):
    failure = error and understood(error, claim.token)
    return domain.conclude_token(claim, failure, chance, retry, **facts)
