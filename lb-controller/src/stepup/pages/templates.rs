//! What is on each page. The HTML is in `templates/`.

use askama::Template;

use super::Frame;
use crate::stepup::factor::Field;

#[derive(Template)]
#[template(path = "login.html")]
pub(in crate::stepup) struct LoginPage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    /// Where the form goes: the page itself, with the way back in its query.
    pub(in crate::stepup) action: &'a str,
    pub(in crate::stepup) user: &'a str,
    pub(in crate::stepup) error: Option<String>,
    /// What each identity provider is called, and where the login there begins.
    pub(in crate::stepup) providers: &'a [(&'a str, String)],
}

#[derive(Template)]
#[template(path = "challenge.html")]
pub(in crate::stepup) struct ChallengePage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) user: &'a str,
    pub(in crate::stepup) method: &'a str,
    pub(in crate::stepup) path: &'a str,
    /// Names and values of what is approved.
    pub(in crate::stepup) facts: &'a [(&'a str, String)],
    pub(in crate::stepup) why: String,
    pub(in crate::stepup) action: &'a str,
    /// Of the method, as rules call it.
    pub(in crate::stepup) name: &'a str,
    pub(in crate::stepup) field: &'a str,
    pub(in crate::stepup) label: String,
    pub(in crate::stepup) hint: String,
    pub(in crate::stepup) form: AnswerForm<'a>,
    /// Other ways: name of the method, what people call it.
    pub(in crate::stepup) others: &'a [(&'static str, String)],
    pub(in crate::stepup) step: usize,
    pub(in crate::stepup) steps: usize,
    pub(in crate::stepup) error: Option<String>,
    pub(in crate::stepup) tries: Option<String>,
    pub(in crate::stepup) onward: String,
    /// Where the same can be proved at the user's identity provider.
    pub(in crate::stepup) at_provider: Option<&'a str>,
}

/// Before the way to an identity provider.
#[derive(Template)]
#[template(path = "approve.html")]
pub(in crate::stepup) struct ApprovePage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) user: &'a str,
    pub(in crate::stepup) method: &'a str,
    pub(in crate::stepup) path: &'a str,
    pub(in crate::stepup) facts: &'a [(&'a str, String)],
    pub(in crate::stepup) why: String,
    pub(in crate::stepup) action: &'a str,
}

/// How the answer comes.
pub(in crate::stepup) enum AnswerForm<'a> {
    Typed {
        field: Field,
    },
    Sent {
        field: Field,
        to: &'a str,
        is_out: bool,
    },
    /// `call`: the function of `navigator.credentials`.
    Passkey {
        options: String,
        call: &'a str,
    },
    Signature {
        text: &'a str,
        /// What to type into a shell.
        command: String,
    },
    Work {
        puzzle: &'a str,
        bits: u8,
        captcha: Option<&'a str>,
    },
}

#[derive(Template)]
#[template(path = "work.html")]
pub(in crate::stepup) struct WorkPage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) method: &'a str,
    pub(in crate::stepup) path: &'a str,
    pub(in crate::stepup) action: &'a str,
    pub(in crate::stepup) field: &'a str,
    pub(in crate::stepup) hint: String,
    pub(in crate::stepup) puzzle: &'a str,
    pub(in crate::stepup) bits: u8,
    pub(in crate::stepup) captcha: Option<&'a str>,
    /// Where there is another way, for those who log in.
    pub(in crate::stepup) login: Option<&'a str>,
    pub(in crate::stepup) error: Option<String>,
}

#[derive(Template)]
#[template(path = "factors.html")]
pub(in crate::stepup) struct FactorsPage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) user: &'a str,
    pub(in crate::stepup) action: &'a str,
    pub(in crate::stepup) factors: &'a [ListedFactor],
    /// Name of the method, and what people call it.
    pub(in crate::stepup) addable: &'a [(&'static str, String)],
    /// A recovery code was used.
    pub(in crate::stepup) must_add: bool,
    pub(in crate::stepup) error: Option<String>,
}

/// One line of the list.
pub(in crate::stepup) struct ListedFactor {
    pub(in crate::stepup) id: String,
    pub(in crate::stepup) kind: String,
    /// Empty: it has none.
    pub(in crate::stepup) name: String,
    pub(in crate::stepup) added: String,
    pub(in crate::stepup) used: String,
}

#[derive(Template)]
#[template(path = "add_factor.html")]
pub(in crate::stepup) struct AddPage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) user: &'a str,
    pub(in crate::stepup) action: &'a str,
    pub(in crate::stepup) label: String,
    pub(in crate::stepup) form: AddForm,
    pub(in crate::stepup) error: Option<String>,
}

/// What adding a factor takes.
pub(in crate::stepup) enum AddForm {
    /// `qr`: SVG that we drew.
    Totp {
        secret: String,
        qr: String,
    },
    /// `call`: the function of `navigator.credentials`.
    Passkey {
        options: String,
        call: &'static str,
    },
    Pin,
    DeveloperKey,
    RecoveryCodes,
}

#[derive(Template)]
#[template(path = "recovery_codes.html")]
pub(in crate::stepup) struct CodesPage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) user: &'a str,
    pub(in crate::stepup) codes: &'a [String],
}

#[derive(Template)]
#[template(path = "enrol.html")]
pub(in crate::stepup) struct EnrolPage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) user: &'a str,
    pub(in crate::stepup) action: &'a str,
    pub(in crate::stepup) error: Option<String>,
}

#[derive(Template)]
#[template(path = "resume.html")]
pub(in crate::stepup) struct ResumePage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) method: &'a str,
    pub(in crate::stepup) path: &'a str,
    pub(in crate::stepup) target: &'a str,
    pub(in crate::stepup) field: &'a str,
    pub(in crate::stepup) transaction: &'a str,
}

#[derive(Template)]
#[template(path = "done.html")]
pub(in crate::stepup) struct DonePage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) method: &'a str,
    pub(in crate::stepup) path: &'a str,
}

#[derive(Template)]
#[template(path = "session.html")]
pub(in crate::stepup) struct SessionPage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) user: &'a str,
    /// Each factor and how long ago it was proved.
    pub(in crate::stepup) proofs: &'a [(String, String)],
    pub(in crate::stepup) ends_in: String,
}

#[derive(Template)]
#[template(path = "message.html")]
pub(in crate::stepup) struct MessagePage<'a> {
    pub(in crate::stepup) frame: &'a Frame<'a>,
    pub(in crate::stepup) heading: String,
    pub(in crate::stepup) text: String,
    pub(in crate::stepup) request: Option<(&'a str, &'a str)>,
}
