"""Use cases of people: sign in by the provider, be recognised by session or token, choose a tenant, sign out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import structlog

from app.audit.records import Action, AuditPerson
from app.audit.repository import AuditRepository
from app.db import Database
from app.keys.records import Caller, Person
from app.keys.roles import SCOPES, Role
from app.people import flow
from app.people.config import Config
from app.people.forms import is_login, is_person_session, new_code, new_session, proof, proof_of
from app.people.problems import NoRole, SignInDenied, SignInLost, TenantUnclear
from app.people.provider import Provider
from app.people.repository import Begun, PeopleRepository, PersonSession
from app.people.tokens import Identity, identity_of, verify
from app.secret import ServerSecret

_log = structlog.get_logger(__name__)

SIGN_IN_S = 600  # so long may somebody stay at the provider's form
_MOST_SIGN_INS = 10_000  # under way at once: strangers begin them
_MOST_SESSIONS = 100  # of one person; the next sign-in ends the oldest
_MOST_SEEN = 10_000


class PeopleService:
    """People of all tenants, as one provider knows them."""

    def __init__(self, config: Config, database: Database, secret: ServerSecret) -> None:
        self._config = config
        self._database = database
        self._secret = secret
        self._provider = Provider(config)
        self._seen: dict[str, Identity] = {}  # whom this process has noted, by the ids of people

    @property
    def provider_name(self) -> str:
        """What people call the provider."""
        return self._config.name

    @property
    def session_s(self) -> float:
        """How long a session on the page may last."""
        return self._config.session_s

    def check(self) -> None:
        """Raise `ProviderAway` where nobody could sign in now."""
        self._provider.check()

    def begin(self, browser: str, wanted: str, redirect_uri: str) -> str:
        """Begin a sign-in of a browser that holds a random cookie.

        Returns:
            The provider's address to send it to.

        Raises:
            ProviderAway: There is nobody to send it to.
        """
        address, attempt = flow.begin(self._provider, self._config, redirect_uri)
        begun = Begun(attempt.nonce, attempt.verifier, wanted)
        state, mine = self._digests("sign-in", attempt.state)[0], self._digests("sign-in-browser", browser)[0]
        with self._database.write() as connection:
            PeopleRepository(connection).begin_sign_in(state, mine, begun, lives_s=SIGN_IN_S, most=_MOST_SIGN_INS)
        return address

    def finish(self, answer: Mapping[str, str], browser: str, redirect_uri: str) -> tuple[str, str]:
        """End a sign-in by what the provider had the browser bring: each answer counts once.

        Returns:
            The value of the session's cookie, and the page to go to.

        Raises:
            SignInLost: This browser has no such sign-in under way.
            SignInDenied: The provider refused.
            ProviderAway: The provider cannot be asked.
            TokenRefused: What it says of the person is not right.
            NoRole: The person may do nothing here.
        """
        states, browsers = self._digests("sign-in", answer.get("state", "")), self._digests("sign-in-browser", browser)
        with self._database.write() as connection:
            begun = PeopleRepository(connection).take_sign_in(states, browsers)
        if begun is None or answer.get("iss", self._config.issuer) != self._config.issuer:
            raise SignInLost("this sign-in was used already, took too long, or began in another browser; begin it again")
        if "code" not in answer:
            code = answer.get("error", "")
            reason = f" ({code})" if re.fullmatch(r"[a-z_]{1,60}", code, re.ASCII) else ""
            raise SignInDenied(f"{self._config.name} did not sign you in{reason}")
        person = flow.finish(
            self._provider,
            self._config,
            redirect_uri,
            code=answer["code"],
            nonce=begun.nonce,
            verifier=begun.verifier,
        )
        return self._begin_session(person), begun.wanted

    def of_session(self, value: str) -> Caller | None:
        """Return who a browser's session is of, or None where it has ended or the person has no role any more."""
        return self._of(self._session_digests(value)) if is_person_session(value) else None

    def of_login(self, text: str) -> Caller | None:
        """Return who is logged in at a command line, as `of_session`."""
        return self._of(self._login_digests(proof_of(text))) if is_login(text) else None

    def _of(self, digests: tuple[str, ...]) -> Caller | None:
        with self._database.read() as connection:
            found = PeopleRepository(connection).of_session(digests)
        if found is None or found.issuer != self._config.issuer:
            return None
        roles = self._config.roles(found.groups)
        if not roles:
            return None
        tenant = found.tenant if found.tenant in roles else next(iter(roles))
        return _caller(found.person_id, _identity(found), roles, tenant)

    def of_token(self, text: str, tenant: str | None) -> Caller:
        """Return whose an access or ID token is, that was shown as Bearer.

        Args:
            text: The token.
            tenant: For which of their tenants they ask; None: for the only one.

        Raises:
            TokenRefused: It does not count.
            ProviderAway: The provider's keys are not known, and cannot be asked for.
            NoRole: The person may do nothing here.
            TenantUnclear: They have several tenants, or not this one.
        """
        claims = verify(text, self._provider, self._config, audiences=self._config.audiences)
        person = identity_of(claims, self._config)
        roles = self._roles(person)
        if tenant is None and len(roles) > 1:
            raise TenantUnclear(f"you have roles for {', '.join(roles)}; say for which by the header Coppice-Tenant")
        if tenant is not None and tenant not in roles:
            raise TenantUnclear(f"you have no role for the tenant that Coppice-Tenant names; you have for {', '.join(roles)}")
        person_id = person_id_of(person)
        if self._seen.get(person_id) != person:
            with self._database.write() as connection:
                AuditRepository(connection).note_person(person_id, _audited(person))
            self._note_seen(person_id, person)
        return _caller(person_id, person, roles, tenant or next(iter(roles)))

    def choose_tenant(self, value: str, caller: Caller, tenant: str) -> None:
        """Have a session show another of its person's tenants. Raises `TenantUnclear`."""
        if caller.person is None or tenant not in caller.person.tenants:
            raise TenantUnclear("you have no role for this tenant")
        with self._database.write() as connection:
            PeopleRepository(connection).choose_tenant(self._session_digests(value), tenant)

    def begin_login(self, value: str, challenge: str) -> str | None:
        """Log a command line in as the person of a browser's session, for the tenant that it shows.

        Args:
            value: The session's cookie.
            challenge: Of the command line. What is given is of no use to any other.

        Returns:
            The code for it; None: there is no such session.
        """
        code = new_code()
        with self._database.write() as connection:
            repository = PeopleRepository(connection)
            found = repository.of_session(self._session_digests(value)) if is_person_session(value) else None
            if found is None:
                return None
            repository.begin_session(
                self._login_digests(proof(code, challenge))[0],
                found.person_id,
                tenant=found.tenant,
                groups=found.groups,
                lives_s=self._config.session_s,
                most=_MOST_SESSIONS,
            )
            AuditRepository(connection).record(Action.LOGGED_IN, found.tenant, found.person_id, found.person_id)
        return code

    def end_login(self, text: str) -> bool:
        """End what a command line was logged in by. Return whether there was something."""
        return is_login(text) and self._end(self._login_digests(proof_of(text)))

    def end_session(self, value: str) -> bool:
        """End a browser's session, wherever its cookie was copied to. Return whether there was one."""
        return is_person_session(value) and self._end(self._session_digests(value))

    def _end(self, digests: tuple[str, ...]) -> bool:
        with self._database.write() as connection:
            repository = PeopleRepository(connection)
            found = repository.of_session(digests)
            repository.end_session(digests)
            if found is not None:
                AuditRepository(connection).record(Action.SIGNED_OUT, found.tenant, found.person_id, found.person_id)
        return found is not None

    def sign_out_address(self, return_to: str) -> str | None:
        """Return where the browser ends its session at the provider too; None: nowhere. Raises `ProviderAway`."""
        return flow.sign_out_address(self._provider.metadata(), self._config, return_to)

    def _begin_session(self, person: Identity) -> str:
        roles = self._roles(person)
        value, person_id = new_session(), person_id_of(person)
        tenant = next(iter(roles))
        with self._database.write() as connection:
            audit = AuditRepository(connection)
            audit.note_person(person_id, _audited(person))
            PeopleRepository(connection).begin_session(
                self._session_digests(value)[0],
                person_id,
                tenant=tenant,
                groups=self._config.known(person.groups),
                lives_s=self._config.session_s,
                most=_MOST_SESSIONS,
            )
            audit.record(Action.SIGNED_IN, tenant, person_id, person_id)
        return value

    def _roles(self, person: Identity) -> Mapping[str, Role]:
        roles = self._config.roles(person.groups)
        if not roles:
            _log.warning("sign_in.no_role", issuer=person.issuer, subject=person.subject)
            raise NoRole(person.name, person.groups)
        return roles

    def _note_seen(self, person_id: str, person: Identity) -> None:
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[person_id] = person

    def _digests(self, purpose: str, text: str) -> tuple[str, ...]:
        return tuple(digest.hex() for digest in self._secret.digests(purpose, text))

    def _login_digests(self, proof: str) -> tuple[str, ...]:
        return self._digests("person-login", proof)

    def _session_digests(self, value: str) -> tuple[str, ...]:
        return self._digests("person-session", value)


def person_id_of(person: Identity) -> str:
    """Name a person where ids of keys stand: the same in every process, and no other person's."""
    known_by = f"{person.issuer}\0{person.subject}"
    return f"per_{hashlib.sha256(known_by.encode()).hexdigest()[:32]}"


def _caller(person_id: str, person: Identity, roles: Mapping[str, Role], tenant: str) -> Caller:
    who = Person(person.issuer, person.subject, person.name, tuple(roles))
    return Caller(tenant, person_id, SCOPES[roles[tenant]], who)


def _identity(found: PersonSession) -> Identity:
    return Identity(found.issuer, found.subject, found.name, found.groups)


def _audited(person: Identity) -> AuditPerson:
    return AuditPerson(person.issuer, person.subject, person.name)
