"""Synthetic affiliations that name no INFN structure: the same towns and words without INFN, and the rest of the world."""

from __future__ import annotations

import random

from .spelling import chance, wos_style
from .structures import STRUCTURES

__all__ = ["institution"]

# Italian institutes that a careless reader takes for INFN: name, street, postcode, town.
_NEAR = (
    ("INAF, Osservatorio Astrofisico di Catania", "Via S. Sofia 78", "95123", "Catania"),
    ("INAF, Osservatorio Astronomico di Padova", "Vicolo dell'Osservatorio 5", "35122", "Padova"),
    ("INAF, Osservatorio Astrofisico di Torino", "Via Osservatorio 20", "10025", "Pino Torinese"),
    ("INAF, Osservatorio Astronomico di Trieste", "Via G.B. Tiepolo 11", "34143", "Trieste"),
    ("INAF, Osservatorio Astrofisico di Arcetri", "Largo E. Fermi 5", "50125", "Firenze"),
    ("INAF, Osservatorio Astronomico di Roma", "Via Frascati 33", "00078", "Monte Porzio Catone"),
    ("INAF, Osservatorio Astronomico di Capodimonte", "Salita Moiariello 16", "80131", "Napoli"),
    ("INAF, Osservatorio Astronomico di Brera", "Via Brera 28", "20121", "Milano"),
    ("INAF, Osservatorio Astronomico di Cagliari", "Via della Scienza 5", "09047", "Selargius"),
    ("INAF, Osservatorio di Astrofisica e Scienza dello Spazio", "Via P. Gobetti 93/3", "40129", "Bologna"),
    ("INAF, Istituto di Radioastronomia", "Via P. Gobetti 101", "40129", "Bologna"),
    ("INAF, Istituto di Astrofisica e Planetologia Spaziali", "Via del Fosso del Cavaliere 100", "00133", "Roma"),
    ("INAF, Istituto di Astrofisica Spaziale e Fisica Cosmica", "Via U. La Malfa 153", "90146", "Palermo"),
    ("Istituto Nazionale di Astrofisica", "Viale del Parco Mellini 84", "00136", "Roma"),
    ("Consiglio Nazionale delle Ricerche", "Piazzale Aldo Moro 7", "00185", "Roma"),
    ("CNR-SPIN", "Corso F. M. Perrone 24", "16152", "Genova"),
    ("CNR-INO, Istituto Nazionale di Ottica", "Largo E. Fermi 6", "50125", "Firenze"),
    ("CNR-IFAC", "Via Madonna del Piano 10", "50019", "Sesto Fiorentino"),
    ("CNR-IMM, Istituto per la Microelettronica e Microsistemi", "Via S. Sofia 64", "95123", "Catania"),
    ("CNR, Istituto di Fotonica e Nanotecnologie", "Piazza Leonardo da Vinci 32", "20133", "Milano"),
    ("CNR, Istituto Officina dei Materiali", "Area Science Park, Basovizza", "34149", "Trieste"),
    ("CNR, Istituto Nanoscienze", "Piazza San Silvestro 12", "56127", "Pisa"),
    ("CNR-NANOTEC", "Via Monteroni", "73100", "Lecce"),
    ("Agenzia Spaziale Italiana", "Via del Politecnico", "00133", "Roma"),
    ("ASI, Space Science Data Center", "Via del Politecnico", "00133", "Roma"),
    ("ENEA, Centro Ricerche Frascati", "Via E. Fermi 45", "00044", "Frascati"),
    ("ENEA Frascati Research Centre", "Via Enrico Fermi 45", "00044", "Frascati"),
    ("ENEA, Centro Ricerche Bologna", "Via Martiri di Monte Sole 4", "40129", "Bologna"),
    ("European Space Agency, ESRIN", "Via Galileo Galilei", "00044", "Frascati"),
    ("Gran Sasso Science Institute", "Viale F. Crispi 7", "67100", "L'Aquila"),
    ("Gran Sasso Science Institute (GSSI)", "Viale Francesco Crispi 7", "67100", "L'Aquila"),
    ("Istituto Nazionale per la Fisica della Materia", "Corso F. Perrone 24", "16152", "Genova"),
    ("INFM, Unità di Genova", "Via Dodecaneso 33", "16146", "Genova"),
    ("INFM, Unità di Padova", "Via Marzolo 8", "35131", "Padova"),
    ("INFM and Dipartimento di Fisica, Università di Trieste", "Via A. Valerio 2", "34127", "Trieste"),
    ("INGV, Istituto Nazionale di Geofisica e Vulcanologia", "Via di Vigna Murata 605", "00143", "Roma"),
    ("INGV, Osservatorio Etneo", "Piazza Roma 2", "95125", "Catania"),
    ("INRIM, Istituto Nazionale di Ricerca Metrologica", "Strada delle Cacce 91", "10135", "Torino"),
    ("European Gravitational Observatory", "Via E. Amaldi", "56021", "Cascina (Pisa)"),
    ("The Abdus Salam International Centre for Theoretical Physics (ICTP)", "Strada Costiera 11", "34151", "Trieste"),
    ("SISSA", "Via Bonomea 265", "34136", "Trieste"),
    ("Elettra-Sincrotrone Trieste", "Area Science Park, Basovizza", "34149", "Trieste"),
    ("Scuola Normale Superiore", "Piazza dei Cavalieri 7", "56126", "Pisa"),
    ("Scuola Superiore Sant'Anna", "Piazza Martiri della Libertà 33", "56127", "Pisa"),
    ("CINECA", "Via Magnanelli 6/3", "40033", "Casalecchio di Reno (Bologna)"),
    ("Fondazione Bruno Kessler", "Via Sommarive 18", "38123", "Povo (Trento)"),
    ("Istituto Superiore di Sanità", "Viale Regina Elena 299", "00161", "Roma"),
    ("Centro Fermi, Museo Storico della Fisica", "Via Panisperna 89/A", "00184", "Roma"),
    ("CNAO, Centro Nazionale di Adroterapia Oncologica", "Strada Campeggi 53", "27100", "Pavia"),
    ("Osservatorio Astronomico della Regione Autonoma Valle d'Aosta", "Loc. Lignan", "11020", "Nus"),
)  # fmt: skip
_ITALIAN = (
    ("Università di Udine", "33100", "Udine"), ("Università di Siena", "53100", "Siena"), ("Università di Parma", "43124", "Parma"),
    ("Università di Salerno", "84084", "Fisciano"), ("Università dell'Insubria", "22100", "Como"), ("Università della Calabria", "87036", "Rende"),
    ("Università di Palermo", "90123", "Palermo"), ("Università di Camerino", "62032", "Camerino"), ("Università di Urbino", "61029", "Urbino"),
    ("Università di Messina", "98166", "Messina"), ("Università di Modena e Reggio Emilia", "41125", "Modena"), ("Università di Trento", "38123", "Trento"),
    ("Politecnico di Milano", "20133", "Milano"), ("Politecnico di Torino", "10129", "Torino"), ("Università della Basilicata", "85100", "Potenza"),
    ("Università di Sassari", "07100", "Sassari"), ("Università del Piemonte Orientale", "15121", "Alessandria"),
)  # fmt: skip
# Laboratories and universities abroad: name, town with its postcode, country.
_ABROAD = tuple(
    tuple(line.split("|"))
    for line in """
CERN|1211 Geneva 23|Switzerland
CERN, European Organization for Nuclear Research|CH-1211 Geneva|Switzerland
Deutsches Elektronen-Synchrotron DESY|22607 Hamburg|Germany
DESY|15738 Zeuthen|Germany
Fermi National Accelerator Laboratory|Batavia, Illinois 60510|USA
Brookhaven National Laboratory|Upton, NY 11973|USA
Lawrence Berkeley National Laboratory|Berkeley, CA 94720|USA
SLAC National Accelerator Laboratory|Menlo Park, CA 94025|USA
Argonne National Laboratory|Argonne, IL 60439|USA
Los Alamos National Laboratory|Los Alamos, NM 87545|USA
Oak Ridge National Laboratory|Oak Ridge, TN 37831|USA
Thomas Jefferson National Accelerator Facility|Newport News, VA 23606|USA
TRIUMF|Vancouver, BC V6T 2A3|Canada
KEK, High Energy Accelerator Research Organization|Tsukuba 305-0801|Japan
RIKEN Nishina Center|Wako, Saitama 351-0198|Japan
Institute of High Energy Physics, Chinese Academy of Sciences|Beijing 100049|China
Joint Institute for Nuclear Research|141980 Dubna|Russia
Budker Institute of Nuclear Physics|Novosibirsk 630090|Russia
Skobeltsyn Institute of Nuclear Physics, Moscow State University|119991 Moscow|Russia
Institute for Nuclear Research of the Russian Academy of Sciences|117312 Moscow|Russia
Institute of Nuclear Physics PAN|31-342 Kraków|Poland
National Centre for Nuclear Research|Otwock-Świerk|Poland
Horia Hulubei National Institute of Physics and Nuclear Engineering|Bucharest-Măgurele|Romania
National Institute for Laser, Plasma and Radiation Physics|Măgurele|Romania
National Institute of Physics, University of the Philippines|Quezon City 1101|Philippines
National Institute of Chemical Physics and Biophysics|10143 Tallinn|Estonia
Nikhef, National Institute for Subatomic Physics|1098 XG Amsterdam|The Netherlands
Institut de Physique Nucléaire, IN2P3-CNRS|91406 Orsay|France
IRFU, CEA, Université Paris-Saclay|91191 Gif-sur-Yvette|France
LPNHE, Sorbonne Université, CNRS/IN2P3|75005 Paris|France
Laboratoire de Physique Théorique, CNRS|91405 Orsay|France
GSI Helmholtzzentrum für Schwerionenforschung|64291 Darmstadt|Germany
Max-Planck-Institut für Kernphysik|69117 Heidelberg|Germany
Max-Planck-Institut für Physik|80805 München|Germany
Paul Scherrer Institut|5232 Villigen PSI|Switzerland
Rutherford Appleton Laboratory|Didcot OX11 0QX|UK
Cavendish Laboratory, University of Cambridge|Cambridge CB3 0HE|United Kingdom
Instituto de Física Corpuscular, CSIC - Universitat de València|46980 Paterna|Spain
CIEMAT|28040 Madrid|Spain
LIP, Laboratório de Instrumentação e Física Experimental de Partículas|1649-003 Lisboa|Portugal
Tata Institute of Fundamental Research|Mumbai 400005|India
Saha Institute of Nuclear Physics|Kolkata 700064|India
Institute of Nuclear and Particle Physics, NCSR Demokritos|15310 Agia Paraskevi|Greece
Institute for Nuclear Research and Nuclear Energy, Bulgarian Academy of Sciences|Sofia|Bulgaria
Institute of Particle and Nuclear Physics, Charles University|Prague|Czech Republic
Centro Brasileiro de Pesquisas Físicas|Rio de Janeiro|Brazil
University of Oxford|Oxford OX1 3RH|United Kingdom
University of Liverpool|Liverpool L69 7ZE|United Kingdom
University of Glasgow|Glasgow G12 8QQ|United Kingdom
University of Chicago|Chicago, IL 60637|USA
Harvard University|Cambridge, MA 02138|USA
Massachusetts Institute of Technology|Cambridge, MA 02139|USA
Columbia University|New York, NY 10027|USA
Yale University|New Haven, CT 06520|USA
University of Maryland|College Park, MD 20742|USA
Michigan State University|East Lansing, MI 48824|USA
University of Michigan|Ann Arbor, MI 48109|USA
Universität Heidelberg|69120 Heidelberg|Germany
Universität Hamburg|22761 Hamburg|Germany
Universität Würzburg|97074 Würzburg|Germany
ETH Zürich|8093 Zürich|Switzerland
Universität Zürich|8057 Zürich|Switzerland
Université de Genève|1211 Genève 4|Switzerland
Université Catholique de Louvain|1348 Louvain-la-Neuve|Belgium
Lund University|221 00 Lund|Sweden
Uppsala University|Uppsala|Sweden
University of Helsinki|00014 Helsinki|Finland
Niels Bohr Institute, University of Copenhagen|2100 Copenhagen|Denmark
Universidad Autónoma de Madrid|28049 Madrid|Spain
Universidade de São Paulo|São Paulo|Brazil
Universidad Nacional de La Plata|La Plata|Argentina
University of Melbourne|Parkville, Victoria 3010|Australia
University of Tokyo|Tokyo 113-0033|Japan
Nagoya University|Nagoya 464-8602|Japan
Seoul National University|Seoul 08826|Korea
Tsinghua University|Beijing 100084|China
Peking University|Beijing 100871|China
University of Science and Technology of China|Hefei 230026|China
Tel Aviv University|Tel Aviv 69978|Israel
Weizmann Institute of Science|Rehovot 76100|Israel
University of the Witwatersrand|Johannesburg|South Africa
Middle East Technical University|Ankara|Turkey
""".strip().splitlines()
)
_FIELDS = (
    "Department of Physics",
    "Physics Department",
    "Department of Physics and Astronomy",
    "School of Physics",
    "Faculty of Science",
    "Institute of Physics",
    "Department of Nuclear Physics",
    "Institute of Theoretical Physics",
    "Department of Computer Science",
    "Department of Engineering Physics",
    "",
    "",
    "",
)
_DEPARTMENTS = (
    "Dipartimento di Fisica",
    "Dipartimento di Matematica",
    "Dipartimento di Ingegneria",
    "Dipartimento di Scienze Fisiche",
    "Dipartimento di Chimica",
    "Department of Physics",
    "Department of Mathematics",
    "Istituto di Fisica Generale",
    "Dipartimento di Informatica",
    "",
)
_ITALY = ("Italy", "Italy", "Italy", "Italy", "Italia", "")


def institution(rng: random.Random) -> str:
    """A synthetic affiliation, with or without an address, that names no INFN structure."""
    kind = rng.random()
    if kind < 0.3:
        return _abroad(rng)
    if kind < 0.55:
        return _university_beside(rng)
    if kind < 0.68:
        name, code, town = rng.choice(_ITALIAN)
        return _joined((rng.choice(_DEPARTMENTS), name, *_place(rng, "", code, town)), rng)
    name, street, code, town = rng.choice(_NEAR)
    dashed = name.replace("INAF, ", rng.choice(("INAF, ", "INAF - ", "INAF-", "INAF ")))
    return _joined((dashed, *_place(rng, street, code, town)), rng)


def _university_beside(rng: random.Random) -> str:
    """A university in an INFN town, in the words of a joint affiliation but without INFN: the hardest negatives."""
    structure = rng.choice(STRUCTURES)
    beside, address = rng.choice(structure.universities), rng.choice(structure.addresses)
    if structure.kind == "laboratory":  # their addresses are the laboratory's own
        return _joined((rng.choice(beside.departments), rng.choice(beside.italian), rng.choice(_ITALY)), rng)
    name = rng.choice((*beside.italian, *beside.english))
    town = rng.choice((address.town, address.english))
    return _joined((rng.choice((*beside.departments, *_DEPARTMENTS)), name, *_place(rng, address.street, address.postcode, town)), rng)


def _abroad(rng: random.Random) -> str:
    name, town, country = rng.choice(_ABROAD)
    university = any(word in name for word in ("Universi", "ETH", "Institute of Technology"))
    field = (
        rng.choice(_FIELDS)
        if university
        else rng.choice(("", "", "", "Theory Division", "Physics Division", "Accelerator Department", "Computing Division"))
    )
    order = (name, field) if chance(rng, 0.2) else (field, name)
    return _joined((*order, *rng.choice(((town, country), (town, country), (town,), (country,)))), rng)


def _place(rng: random.Random, street: str, code: str, town: str) -> tuple[str, ...]:
    coded = rng.choice((f"{code} {town}", f"I-{code} {town}", f"I-{code} {town}", f"{town}, {code}", town))
    return (*rng.choice(((street, coded), (street, coded), (coded,), (town,))), rng.choice(_ITALY))


def _joined(parts: tuple[str, ...], rng: random.Random) -> str:
    present = [part for part in parts if part]
    return ", ".join(wos_style(part) for part in present) if chance(rng, 0.08) else ", ".join(present)
