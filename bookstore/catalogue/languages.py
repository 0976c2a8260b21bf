"""Languages as feeds and people name them (`eng`, `en-US`, `EN`), brought to the shortest ISO 639 code there is."""

from __future__ import annotations

import re

# ISO 639-1 and the three-letter codes of the same language: the terminological one, then the bibliographic one, which
# ONIX and library catalogues use, where it differs.
_CODES = """
aa aar · ab abk · ae ave · af afr · ak aka · am amh · an arg · ar ara · as asm · av ava · ay aym · az aze · ba bak ·
be bel · bg bul · bi bis · bm bam · bn ben · bo bod tib · br bre · bs bos · ca cat · ce che · ch cha · co cos · cr cre ·
cs ces cze · cu chu · cv chv · cy cym wel · da dan · de deu ger · dv div · dz dzo · ee ewe · el ell gre · en eng ·
eo epo · es spa · et est · eu eus baq · fa fas per · ff ful · fi fin · fj fij · fo fao · fr fra fre · fy fry · ga gle ·
gd gla · gl glg · gn grn · gu guj · gv glv · ha hau · he heb · hi hin · ho hmo · hr hrv · ht hat · hu hun · hy hye arm ·
hz her · ia ina · id ind · ie ile · ig ibo · ii iii · ik ipk · io ido · is isl ice · it ita · iu iku · ja jpn · jv jav ·
ka kat geo · kg kon · ki kik · kj kua · kk kaz · kl kal · km khm · kn kan · ko kor · kr kau · ks kas · ku kur · kv kom ·
kw cor · ky kir · la lat · lb ltz · lg lug · li lim · ln lin · lo lao · lt lit · lu lub · lv lav · mg mlg · mh mah ·
mi mri mao · mk mkd mac · ml mal · mn mon · mr mar · ms msa may · mt mlt · my mya bur · na nau · nb nob · nd nde ·
ne nep · ng ndo · nl nld dut · nn nno · no nor · nr nbl · nv nav · ny nya · oc oci · oj oji · om orm · or ori · os oss ·
pa pan · pi pli · pl pol · ps pus · pt por · qu que · rm roh · rn run · ro ron rum · ru rus · rw kin · sa san · sc srd ·
sd snd · se sme · sg sag · si sin · sk slk slo · sl slv · sm smo · sn sna · so som · sq sqi alb · sr srp · ss ssw ·
st sot · su sun · sv swe · sw swa · ta tam · te tel · tg tgk · th tha · ti tir · tk tuk · tl tgl · tn tsn · to ton ·
tr tur · ts tso · tt tat · tw twi · ty tah · ug uig · uk ukr · ur urd · uz uzb · ve ven · vi vie · vo vol · wa wln ·
wo wol · xh xho · yi yid · yo yor · za zha · zh zho chi · zu zul
"""
_SHORTEST = {code: codes[0] for codes in (entry.split() for entry in _CODES.split("·")) for code in codes}
_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*", re.IGNORECASE | re.ASCII)


def normalise_language(text: str) -> str | None:
    """`en` for `eng`, `EN` and `en-GB`; `grc` stays, having no shorter code; None for what cannot be a code.

    Two letters must be a known code. Three letters nobody listed here are taken as given: there are thousands.
    """
    tag = _TAG.fullmatch(text.strip())
    if tag is None:
        return None
    code = tag[1].lower()
    return _SHORTEST.get(code, code if len(code) == 3 else None)
