"""ISO 4217: how many decimals a currency has, which is what an amount in minor units means."""

from __future__ import annotations

from decimal import Decimal

# All that ISO 4217 gives decimals, units of account and indexed units included: metals, SDR and test codes have none.
_BY_EXPONENT = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
    "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
    "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
    "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
    "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG "
    "YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
#: Currency to its number of decimals. The table `currencies` holds the same; a test compares them.
EXPONENTS = {code: exponent for exponent, codes in _BY_EXPONENT.items() for code in codes.split()}

_LARGEST_AMOUNT = 10**15


def minor_units(amount: Decimal, currency: str) -> int:
    """1499 for 14.99 USD, 15 for 15 JPY. ValueError says what is wrong: never rounds, never negative."""
    if currency not in EXPONENTS:
        raise ValueError(f"{currency} is not a currency of ISO 4217 known here")
    if not amount.is_finite() or amount < 0 or amount > _LARGEST_AMOUNT:
        raise ValueError("a price is a number from 0 up")
    units = amount.scaleb(EXPONENTS[currency])
    if units != units.to_integral_value():
        raise ValueError(f"{currency} has {EXPONENTS[currency]} decimals")
    return int(units)
