"""The INFN structures: how each is named and where it is, from public addresses. Facts only, no generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["STRUCTURES", "Address", "Structure", "University"]


@dataclass(frozen=True)
class Address:
    """A public postal address; `english` is the town's English name where it has one."""

    street: str
    postcode: str
    town: str
    english: str


@dataclass(frozen=True)
class University:
    """A university beside a structure: Italian, English and Web of Science names, and its departments."""

    italian: tuple[str, ...]
    english: tuple[str, ...]
    wos: str
    departments: tuple[str, ...]


@dataclass(frozen=True)
class Structure:
    """One INFN structure. `names`, `english` and `wos` are of the unit without the word for section."""

    code: str
    kind: Literal["section", "laboratory"]
    names: tuple[str, ...]
    english: tuple[str, ...]
    wos: tuple[str, ...]
    addresses: tuple[Address, ...]
    universities: tuple[University, ...]


PHYSICS = ("Dipartimento di Fisica", "Department of Physics", "Physics Department")
ASTRONOMY = ("Dipartimento di Fisica e Astronomia", "Department of Physics and Astronomy")


def _university(city: str, english: str, *, italian: tuple[str, ...] = (), departments: tuple[str, ...] = PHYSICS) -> University:
    plain = (f"Università di {city}", f"Università degli Studi di {city}")
    return University(italian or plain, (f"University of {english}", f"{english} University"), f"Univ {english}", departments)


def _section(code: str, city: str, english: str, addresses: tuple[tuple[str, str, str], ...], *universities: University) -> Structure:
    places = tuple(Address(street, post, town, english if town == city else town) for street, post, town in addresses)
    return Structure(code, "section", (city,), (english,), (city, english), places, universities)


_SAPIENZA = University(
    ("Sapienza Università di Roma", "Università di Roma “La Sapienza”", "Università degli Studi di Roma “La Sapienza”"),
    ("Sapienza University of Rome", "University of Rome “La Sapienza”"),
    "Univ Roma La Sapienza",
    PHYSICS,
)
_TOR_VERGATA = University(
    ("Università di Roma “Tor Vergata”", "Università degli Studi di Roma “Tor Vergata”"),
    ("University of Rome “Tor Vergata”", "Tor Vergata University of Rome"),
    "Univ Roma Tor Vergata",
    PHYSICS,
)
_ROMA_TRE = University(
    ("Università Roma Tre", "Università degli Studi Roma Tre"),
    ("Roma Tre University", "University of Roma Tre"),
    "Univ Roma Tre",
    ("Dipartimento di Matematica e Fisica", "Department of Mathematics and Physics", "Dipartimento di Fisica “E. Amaldi”"),
)
_MILANO = _university("Milano", "Milan")
_BICOCCA = University(
    ("Università di Milano-Bicocca", "Università degli Studi di Milano-Bicocca"),
    ("University of Milano-Bicocca", "University of Milan-Bicocca"),
    "Univ Milano Bicocca",
    ("Dipartimento di Fisica “G. Occhialini”", *PHYSICS),
)
_BOLOGNA = _university(
    "Bologna", "Bologna", italian=("Università di Bologna", "Alma Mater Studiorum - Università di Bologna"), departments=ASTRONOMY
)
_CATANIA = _university("Catania", "Catania", departments=(*ASTRONOMY, "Dipartimento di Fisica e Astronomia “E. Majorana”"))
_PADOVA = _university("Padova", "Padua", departments=(*ASTRONOMY, "Dipartimento di Fisica e Astronomia “G. Galilei”"))
_SISSA = University(("SISSA", "Scuola Internazionale Superiore di Studi Avanzati"), ("SISSA",), "SISSA", ("Theoretical Particle Physics",))
_NORMALE = University(("Scuola Normale Superiore",), ("Scuola Normale Superiore",), "Scuola Normale Super Pisa", ("Classe di Scienze",))
_GSSI = University(
    ("Gran Sasso Science Institute", "Gran Sasso Science Institute (GSSI)"), ("GSSI",), "Gran Sasso Sci Inst", ("Area di Fisica",)
)
_AQUILA = University(
    ("Università dell'Aquila", "Università degli Studi dell'Aquila"),
    ("University of L'Aquila",),
    "Univ Aquila",
    ("Dipartimento di Scienze Fisiche e Chimiche", "Department of Physical and Chemical Sciences"),
)
_POLIBA = University(("Politecnico di Bari",), ("Polytechnic of Bari",), "Politecn Bari", ("Dipartimento Interateneo di Fisica",))
_POLITO = University(
    ("Politecnico di Torino",), ("Polytechnic of Turin",), "Politecn Torino", ("Dipartimento Scienza Applicata e Tecnologia",)
)
_POLIMI = University(("Politecnico di Milano",), ("Polytechnic of Milan",), "Politecn Milan", ("Dipartimento di Energia", *PHYSICS))
_SALENTO = University(
    ("Università del Salento",),
    ("University of Salento",),
    "Univ Salento",
    ("Dipartimento di Matematica e Fisica “E. De Giorgi”", "Department of Mathematics and Physics"),
)
_FEDERICO = University(
    ("Università di Napoli “Federico II”", "Università degli Studi di Napoli “Federico II”", "Università Federico II di Napoli"),
    ("University of Naples “Federico II”", "University of Napoli Federico II"),
    "Univ Naples Federico II",
    ("Dipartimento di Fisica “E. Pancini”", "Dipartimento di Scienze Fisiche", *PHYSICS),
)


def _rome(code: str, names: tuple[str, ...], wos: tuple[str, ...], street: tuple[str, ...], postcode: str, beside: University) -> Structure:
    english = tuple(name.replace("Roma", "Rome") if "Tre" not in name else name for name in names)
    places = tuple(Address(line, postcode, "Roma", "Rome") for line in street)
    return Structure(code, "section", names, english, wos, places, (beside,))


def _laboratory(
    code: str, names: tuple[str, ...], english: tuple[str, ...], wos: str, addresses: tuple[Address, ...], *beside: University
) -> Structure:
    return Structure(code, "laboratory", (*names, code), english, (wos,), addresses, beside)


STRUCTURES: tuple[Structure, ...] = (
    _section(
        "BA",
        "Bari",
        "Bari",
        (("Via E. Orabona 4", "70125", "Bari"), ("Via G. Amendola 173", "70126", "Bari")),
        _university(
            "Bari",
            "Bari",
            italian=("Università di Bari", "Università degli Studi di Bari “Aldo Moro”"),
            departments=("Dipartimento Interateneo di Fisica “M. Merlin”", *PHYSICS),
        ),
        _POLIBA,
    ),
    _section(
        "BO", "Bologna", "Bologna", (("Via Irnerio 46", "40126", "Bologna"), ("Viale C. Berti Pichat 6/2", "40127", "Bologna")), _BOLOGNA
    ),
    _section(
        "CA",
        "Cagliari",
        "Cagliari",
        (("Cittadella Universitaria", "09042", "Monserrato (Cagliari)"), ("Complesso Universitario di Monserrato", "09042", "Monserrato")),
        _university("Cagliari", "Cagliari"),
    ),
    _section("CT", "Catania", "Catania", (("Via S. Sofia 64", "95123", "Catania"), ("Via Santa Sofia 64", "95123", "Catania")), _CATANIA),
    _section(
        "FE",
        "Ferrara",
        "Ferrara",
        (("Via Saragat 1", "44122", "Ferrara"), ("Via G. Saragat 1", "44100", "Ferrara")),
        _university("Ferrara", "Ferrara", departments=("Dipartimento di Fisica e Scienze della Terra", *PHYSICS)),
    ),
    _section(
        "FI",
        "Firenze",
        "Florence",
        (("Via G. Sansone 1", "50019", "Sesto Fiorentino"), ("Via B. Rossi 1", "50019", "Sesto Fiorentino (Firenze)")),
        _university("Firenze", "Florence", departments=(*ASTRONOMY, *PHYSICS)),
    ),
    _section(
        "GE", "Genova", "Genoa", (("Via Dodecaneso 33", "16146", "Genova"),), _university("Genova", "Genoa", departments=("DIFI", *PHYSICS))
    ),
    _section(
        "LE", "Lecce", "Lecce", (("Via per Arnesano", "73100", "Lecce"), ("Via Provinciale per Arnesano", "73100", "Lecce")), _SALENTO
    ),
    _section("MI", "Milano", "Milan", (("Via Celoria 16", "20133", "Milano"), ("Via G. Celoria 16", "20133", "Milano")), _MILANO, _POLIMI),
    Structure(
        "MIB",
        "section",
        ("Milano-Bicocca", "Milano Bicocca"),
        ("Milano-Bicocca", "Milan-Bicocca"),
        ("Milano Bicocca",),
        (Address("Piazza della Scienza 3", "20126", "Milano", "Milan"), Address("P.za della Scienza 3", "20126", "Milano", "Milan")),
        (_BICOCCA,),
    ),
    _section(
        "NA",
        "Napoli",
        "Naples",
        (
            ("Complesso Universitario di Monte S. Angelo, Via Cintia", "80126", "Napoli"),
            ("Via Cintia", "80126", "Napoli"),
            ("Compl. Univ. Monte S. Angelo, Via Cinthia", "80126", "Napoli"),
        ),
        _FEDERICO,
    ),
    _section("PD", "Padova", "Padua", (("Via Marzolo 8", "35131", "Padova"), ("Via F. Marzolo 8", "35131", "Padova")), _PADOVA),
    _section(
        "PG",
        "Perugia",
        "Perugia",
        (("Via A. Pascoli", "06123", "Perugia"), ("Via Pascoli", "06123", "Perugia")),
        _university("Perugia", "Perugia", departments=("Dipartimento di Fisica e Geologia", *PHYSICS)),
    ),
    _section(
        "PI",
        "Pisa",
        "Pisa",
        (("Largo B. Pontecorvo 3", "56127", "Pisa"), ("Largo Bruno Pontecorvo 3", "56127", "Pisa")),
        _university("Pisa", "Pisa", departments=("Dipartimento di Fisica “E. Fermi”", *PHYSICS)),
        _NORMALE,
    ),
    _section(
        "PV",
        "Pavia",
        "Pavia",
        (("Via A. Bassi 6", "27100", "Pavia"), ("Via Bassi 6", "27100", "Pavia")),
        _university("Pavia", "Pavia", departments=("Dipartimento di Fisica Nucleare e Teorica", *PHYSICS)),
    ),
    _rome(
        "RM1",
        ("Roma", "Roma", "Roma 1", "Roma I", "Roma “La Sapienza”"),
        ("Roma", "Roma 1", "Roma I"),
        ("Piazzale Aldo Moro 2", "P.le A. Moro 2"),
        "00185",
        _SAPIENZA,
    ),
    _rome(
        "RM2",
        ("Roma Tor Vergata", "Roma “Tor Vergata”", "Roma 2", "Roma II", "Roma 2 “Tor Vergata”"),
        ("Roma Tor Vergata", "Roma 2", "Roma II"),
        ("Via della Ricerca Scientifica 1", "Via della Ricerca Scientifica"),
        "00133",
        _TOR_VERGATA,
    ),
    _rome(
        "RM3",
        ("Roma Tre", "Roma Tre", "Roma 3", "Roma III"),
        ("Roma Tre", "Roma 3", "Roma III"),
        ("Via della Vasca Navale 84", "Via Vasca Navale 84"),
        "00146",
        _ROMA_TRE,
    ),
    _section(
        "TO",
        "Torino",
        "Turin",
        (("Via P. Giuria 1", "10125", "Torino"), ("Via Pietro Giuria 1", "10125", "Torino")),
        _university("Torino", "Turin"),
        _POLITO,
    ),
    _section(
        "TS",
        "Trieste",
        "Trieste",
        (("Via A. Valerio 2", "34127", "Trieste"), ("Padriciano 99", "34149", "Trieste")),
        _university("Trieste", "Trieste"),
        _SISSA,
    ),
    _laboratory(
        "LNF",
        ("Laboratori Nazionali di Frascati",),
        ("Frascati National Laboratory", "Frascati National Laboratories"),
        "Lab Nazl Frascati",
        (
            Address("Via Enrico Fermi 40", "00044", "Frascati", "Frascati"),
            Address("Via Enrico Fermi 54", "00044", "Frascati (Roma)", "Frascati (Rome)"),
            Address("Via E. Fermi 40", "00044", "Frascati", "Frascati"),
        ),
        _SAPIENZA,
        _TOR_VERGATA,
    ),
    _laboratory(
        "LNGS",
        ("Laboratori Nazionali del Gran Sasso", "Laboratorio Nazionale del Gran Sasso"),
        ("Gran Sasso National Laboratory", "Gran Sasso Laboratory"),
        "Lab Nazl Gran Sasso",
        (
            Address("Via G. Acitelli 22", "67100", "Assergi (L'Aquila)", "Assergi (L'Aquila)"),
            Address("S.S. 17/bis km 18+910", "67010", "Assergi (AQ)", "Assergi, L'Aquila"),
            Address("Via G. Acitelli 22", "67100", "Assergi", "Assergi"),
        ),
        _GSSI,
        _AQUILA,
    ),
    _laboratory(
        "LNL",
        ("Laboratori Nazionali di Legnaro",),
        ("Legnaro National Laboratory", "Legnaro National Laboratories"),
        "Lab Nazl Legnaro",
        (
            Address("Viale dell'Università 2", "35020", "Legnaro (Padova)", "Legnaro (Padua)"),
            Address("Viale dell'Università 2", "35020", "Legnaro", "Legnaro"),
        ),
        _PADOVA,
    ),
    _laboratory(
        "LNS",
        ("Laboratori Nazionali del Sud",),
        ("Southern National Laboratory", "Laboratori Nazionali del Sud"),
        "Lab Nazl Sud",
        (Address("Via S. Sofia 62", "95123", "Catania", "Catania"), Address("Via Santa Sofia 62", "95123", "Catania", "Catania")),
        _CATANIA,
    ),
    _laboratory(
        "CNAF",
        (),
        ("CNAF National Computing Centre", "CNAF Data Centre"),
        "CNAF",
        (
            Address("Viale Carlo Berti Pichat 6/2", "40127", "Bologna", "Bologna"),
            Address("Viale C. Berti Pichat 6", "40127", "Bologna", "Bologna"),
        ),
        _BOLOGNA,
    ),
    _laboratory(
        "TIFPA",
        ("Trento Institute for Fundamental Physics and Applications (TIFPA)", "Centro TIFPA"),
        ("Trento Institute for Fundamental Physics and Applications", "TIFPA"),
        "TIFPA",
        (Address("Via Sommarive 14", "38123", "Povo (Trento)", "Povo, Trento"), Address("Via Sommarive 14", "38123", "Trento", "Trento")),
        _university("Trento", "Trento"),
    ),
)
