"""All rules of redaction, and the kinds of what they find."""

from typing import Final

from core.pii_checks import Rule
from core.pii_coins import COIN_RULES
from core.pii_connections import CONNECTION_RULES
from core.pii_national import NATIONAL_RULES
from core.pii_numbers import NUMBER_RULES
from core.pii_phones import PHONE_RULES
from core.pii_private_keys import PRIVATE_KEY_RULES
from core.pii_secrets import SECRET_RULES, is_secret_name

__all__ = ["KINDS", "KIND_OF", "RULES", "Rule", "is_secret_name"]

RULES: Final = (*PRIVATE_KEY_RULES, *CONNECTION_RULES, *SECRET_RULES, *NATIONAL_RULES, *NUMBER_RULES, *PHONE_RULES, *COIN_RULES)
"""Of two that find the same characters the first counts."""
KINDS: Final = tuple(sorted({rule.kind for rule in RULES}))
"""What scores and the redaction of a config are named by."""
KIND_OF: Final = {rule.name: rule.kind for rule in RULES}
"""Rule name → kind."""
