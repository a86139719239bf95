"""A source unlike MIMIC-III: stays tell patients, offsets instead of dates, ages, text identifiers, other text."""

SITE = "schema: fairsynth.site/1\nsource: made-up\n"
OFFSET_RULES = """\
schema: fairsynth.rules/1
text: {delimiter: ";", encoding: gb18030, missing: ["?"]}
identifiers: {subject: text, visit: text}
patients: STAY
visits: {table: STAY, start: null, end: LEFT, clock: {unit: minutes, order: [NUMBER]}}
tables:
  - file: STAY
    columns: [WHO, STAY, NUMBER, LEFT, AGE, SEX, BORN, MONTH, KIND]
    subject: WHO
    visit: STAY
    where: {KIND: ["", ward]}
    events:
      - {code: "GENDER//{SEX}"}
      - {code: "MEDS_BIRTH", age: {column: AGE, cells: {"> 89": 91}}}
      - {code: "REGISTERED", date: {year: BORN, month: MONTH}, optional: true}
      - {code: "ADMISSION//STAY", at: start}
  - file: LAB
    columns: [STAY, NAME, MINUTE, RESULT]
    subject: null
    visit: STAY
    events:
      - {code: "LAB//{NAME}", time: MINUTE, value: RESULT}
"""
STAYS = """\
WHO;STAY;NUMBER;LEFT;AGE;SEX;BORN;MONTH;KIND
p1;s-1;1;600;64;女;1950;3;ward
p1;s-2;2;90.5;> 89;女;;;
p2;s-3;1;1440;0.5;男;?;?;ward
p3;s-4;1;60;30;女;;;theatre
"""
LABS = """\
STAY;NAME;MINUTE;RESULT
s-1;血糖;-15;5.6
s-2;血糖;30;7.1
s-3;钾;0;?
"""
OFFSET_TABLES = {"STAY": STAYS, "LAB": LABS}
