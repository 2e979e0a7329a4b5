"""Scrubbing: what must go, what must stay."""

import random
from collections import Counter

import pytest

from common.data.pii import scrub, scrub_conversation, scrub_conversations
from common.data.records import Conversation, Message

EMAILS = [
    "jane@example.com",
    "jane.doe+news@mail.example.co.uk",
    "j_s%x@berkeley.edu",
    "_x@a-b.io",
    "müller@bücher.de",
    "O'Brien@example.org",
]
PHONES = [
    "+1 (555) 123-4567",
    "+1-555-123-4567",
    "+15551234567",
    "+44 20 7946 0958",
    "+49 (0)30 123456",
    "+33 1 23 45 67 89",
    "+86 138 0013 8000",
    "+91-98765-43210",
    "0044 20 7946 0958",
    "(123) 456-7890",
    "(555)123-4567",
    "555-123-4567",
    "555.123.4567",
    "1-800-555-0199",
    "020 7946 0958",
    "07700 900123",
    "06 12 34 56 78",
]
SURROUNDINGS = ["{}", "mail or ring {}.", "({})", "<{}>,", '"{}"\nnext', "Contact:{};", "at {}!"]


@pytest.mark.parametrize("around", SURROUNDINGS)
@pytest.mark.parametrize("address", EMAILS)
def test_emails_go(address, around):
    assert scrub(around.format(address)) == (around.format("[EMAIL]"), {"email": 1})


@pytest.mark.parametrize("around", SURROUNDINGS)
@pytest.mark.parametrize("number", PHONES)
def test_phone_numbers_go(number, around):
    assert scrub(around.format(number)) == (around.format("[PHONE]"), {"phone": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call 555-0123 now", "call [PHONE] now"),
        ("Phone: 0612345678", "Phone: [PHONE]"),
        ("my phone number is 5551234567.", "my phone number is [PHONE]."),
        ("WhatsApp 0151 23456789", "WhatsApp [PHONE]"),
        ("tel:+15551234567", "tel:[PHONE]"),
        ("user name: xyz", "user name: [USER]"),
        ("username xyz", "username [USER]"),
        ("User name:  @mike\nJob: x", "User name:  [USER]\nJob: x"),
        ("my username is coolguy42.", "my username is [USER]."),
        ("Username: jane_doe", "Username: [USER]"),
        ("user_name=jane.doe", "user_name=[USER]"),
        ("her user name was kim", "her user name was [USER]"),
        ("the username 'bob' works", "the username '[USER]' works"),
        ("log in with username johndoe, please", "log in with username [USER], please"),
        ("ask @kim_82 about it", "ask [USER] about it"),
        ("@kim thanks!", "[USER] thanks!"),
        ("(@shayman)", "([USER])"),
        ("see https://site.example/@open-ai/post", "see https://site.example/[USER]/post"),
    ],
)
def test_what_a_word_announces_goes(text, expected):
    assert scrub(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        # dates, years, times
        *("in 1999 and 2024-01-31", "2010/07/05", "01/09/2022", "01-09-2022", "1986-2011"),
        *("2023-01-01 10:30:00", "12:30:45", "call 1986-2011", "phone bill of 2024-01-31"),
        # prices and quantities
        *("$1,299,000", "1 299 000 EUR", "the phone costs 1 299 000", "phone 12 000 000"),
        *("1000000", "5551234567", "10 000 000 000", "+1000000 people", "call 1000000 people"),
        # addresses of machines, serial numbers, coordinates
        *("192.168.100.200", "10.0.0.255:8080", "00:11:22:33:44:55", "version 1.2.3.4"),
        *("5309 7677 8244 1346", "978-3-16-148410-0", "123e4567-e89b-12d3-a456-426614174000"),
        *("40.728157, -73.794853", "+40.728157", "https://example.com/1234567890"),
        # arithmetic
        *("278 / 16", "100 + 200 - 3000", "16(16-10)(16-14)(16-8)", "5 +12345678", "+5-3"),
        *("3.14159265358979", "1.000012607", "1 2 3 4 5 6 7 8 9 10", "01 02 03 04 05 06"),
        *("555-123-4567 = x", "2000-3000-4000", "100-200"),
        # @ that is no user's
        *("user@server:/home/x", "actions/checkout@v2", "@types/node", "x @ y", "a@b", "@2x"),
        *("@staticmethod\ndef f(): pass", "@media (max-width: 3px)", "@prefix\ndef x():"),
        *(
            "@app.route('/')\ndef x",
            "@withLoading\nclass A",
            "open at 5pm @ home",
            "the @gmail.com",
        ),
        # prose and code about user names
        *("username and password", "the username must be", "usernames", "username on server A."),
        *("userName: event.target.value", "Username\n2.3. First Name", "username: your_username"),
        *("the user name is required", "username: string", '"username", "password"'),
        *("getUsername()", "username = input('x')", "username policy and"),
    ],
)
def test_what_is_no_personal_data_stays(text):
    assert scrub(text) == (text, {})


def test_each_thing_is_counted_once_under_its_kind():
    text = "Email: a@b.com, b@c.org. Phone: +1 555 123 4567, user name: bob_1 and @ann."
    assert scrub(text) == (
        "Email: [EMAIL], [EMAIL]. Phone: [PHONE], user name: [USER] and [USER].",
        {"email": 2, "phone": 1, "user": 2},
    )


def test_scrubbing_twice_changes_nothing_more():
    draw = random.Random(0)
    parts = [*EMAILS, *PHONES, "user name: x1", "username bob.", "@kim", "tel ", "[USER]", "(", "-"]
    parts += [" ", "\n", "+", "@", ".", "call 555-0100", "1999", "word", ":", "/", '"']
    for _ in range(3000):
        text = "".join(draw.choices(parts, k=draw.randint(1, 7)))
        once, _ = scrub(text)
        assert scrub(once) == (once, {}), text


def test_long_text_takes_no_time():
    # A pattern that backtracks without bound would take minutes here.
    for text in ("a" * 100_000, "1 " * 50_000, "user name " * 10_000, "a@" * 50_000, "." * 99_999):
        scrub(text)
    assert scrub("x" * 100_000 + " a@b.com")[1] == {"email": 1}


def test_every_message_of_a_conversation_is_scrubbed_and_nothing_else_changes():
    facts = {"mail": "a@b.com"}
    messages = [
        Message("system", "Admin: root@example.com"),
        Message("user", "I am @kim"),
        Message("assistant", "Hello"),
    ]
    conversation = Conversation(tuple(messages), "file:1", facts)
    clean, counts = scrub_conversation(conversation)
    assert [m.content for m in clean.messages] == ["Admin: [EMAIL]", "I am [USER]", "Hello"]
    assert [m.role for m in clean.messages] == ["system", "user", "assistant"]
    assert (clean.origin, clean.facts) == ("file:1", facts)
    assert counts == Counter(email=1, user=1)

    sets, counts = scrub_conversations([[conversation], [conversation, conversation]])
    assert sets == [[clean], [clean, clean]]
    assert counts == Counter(email=3, user=3)
    assert scrub_conversations([[conversation]], enabled=False) == ([[conversation]], {})
