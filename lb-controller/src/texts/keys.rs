//! The keys of all texts, and what each is filled in with. A key here and none in `assets/texts.yaml`, or the reverse, fails
//! the tests; a key that the code names and that is not here does not compile.

use std::fmt::Display;

use super::{Filled, Known, Texts};

/// Makes of each key a method of [`Texts`], and a function of [`say`].
macro_rules! texts {
    ($($key:ident $(($($place:ident),+))?;)+) => {
        /// In the order of their numbers.
        pub(super) const KEYS: &[Known] =
            &[$(Known { name: stringify!($key), places: &[$($(stringify!($place)),+)?] }),+];

        #[expect(non_camel_case_types, reason = "they are called as in the file of texts")]
        #[derive(Clone, Copy)]
        enum Key {
            $($key),+
        }

        impl Texts {
            $(pub fn $key(&self $($(, $place: impl Display)+)?) -> Filled<'_> {
                self.filled(Key::$key as usize, vec![$($($place.to_string()),+)?])
            })+
        }

        /// Texts whose language is chosen when they are shown.
        pub mod say {
            use std::fmt::Display;

            use super::Key;
            use crate::texts::Message;

            $(pub fn $key($($($place: impl Display),+)?) -> Message {
                Message::Known { key: Key::$key as usize, values: vec![$($($place.to_string()),+)?] }
            })+
        }
    };
}

texts! {
    // Every page.
    you_are_at(host);
    to_start_page;
    cancel;

    // Spans of time.
    seconds(count);
    one_second;
    minutes(count);
    hours(count);
    ago(span);
    never;

    // Logging in.
    login;
    login_why;
    user_name;
    log_in;
    or;
    log_in_with(provider);
    login_wrong;

    // The session.
    session;
    session_about(user, span);
    log_out;

    // Challenges.
    challenge;
    not_accepted_title(title);
    logged_in_as(user);
    why_each_time;
    why_for(span);
    why;
    step_of(label, step, steps);
    last_try;
    one_try_left;
    tries_left(count);
    confirm;
    sent_to(address);
    will_be_sent_to(address);
    send_code;
    send_another;
    passkey_failed;
    passkey_needs_script;
    use_another_way;
    sign_this;
    sign_how(command);
    captcha_token;
    captcha_how;
    captcha_open;
    puzzle_needs_script;
    other_ways;
    onward_redirect;
    onward_parked;
    onward_retry;
    onward_elsewhere;
    what_you_confirm;
    not_given;
    empty;
    confirm_at_provider;
    one_moment;
    one_moment_about;
    checking_browser;
    log_in_instead;
    at_provider;

    // After a challenge.
    confirmed;
    resume_about;
    resume_button;
    done_about;
    retry_about;

    // Factors: how each is called, where it is found, and what is said when it is refused.
    password_label;
    password_hint;
    password_refused;
    pin_label;
    pin_hint;
    pin_refused;
    passkey_label;
    passkey_hint;
    passkey_refused;
    totp_label;
    totp_hint;
    totp_refused;
    developer_key_label;
    developer_key_hint;
    developer_key_refused;
    recovery_label;
    recovery_hint;
    recovery_refused;
    email_label;
    sms_label;
    sent_code_hint;
    sent_code_refused;
    external_label;
    external_hint;
    external_refused;
    work_label;
    work_hint;
    work_refused;
    idp_label;
    certificate_label;
    unknown_label;

    // People's own factors.
    factors;
    factors_about(user);
    must_add;
    none_yet;
    kind;
    added;
    last_used;
    name;
    rename;
    remove;
    add_a_factor;
    add;
    bad_name;
    add_title(factor);
    not_added_title(title);
    add_about(user);
    add_totp;
    qr_code;
    code_now;
    add_passkey;
    passkey_not_added;
    passkey_known;
    pin_rules;
    pin_again;
    public_key;
    public_key_hint(example);
    add_recovery;
    make_codes;
    factor_name;
    factor_name_example;
    codes;
    codes_about(user);
    codes_written_down;
    wrong_totp;
    took_too_long;
    passkey_not_taken;
    pins_differ;
    pin_shape;
    pin_guessable;
    not_a_public_key;
    cannot_be_added;
    too_many_factors(count);
    enrol;
    enrol_about(user);
    enrolment_token;
    enrolment_token_hint;
    enrolment_token_wrong;
    go_on;

    // E-mails and text messages.
    mail_code_subject(host);
    mail_code(host, code);
    mail_code_approving(host, code, facts);
    sms_code(code, host);
    sms_code_approving(code, host, facts);
    mail_added_subject(host);
    mail_added(user, host, factor);
    mail_removed_subject(host);
    mail_removed(user, host, factor);
    mail_recovery_subject(host);
    mail_recovery(user, host);
    mail_not_you(host);
    mail_token_subject;
    mail_token(user, path, token);

    // Refusals: a heading, and what to do.
    log_in_first;
    log_in_first_about;
    login_failed;
    not_found;
    no_such_page;
    wrong_method;
    wrong_method_about;
    unreadable_form;
    unreadable_form_about;
    incomplete_form;
    incomplete_form_about;
    no_answer;
    no_answer_about;
    body_cut_short;
    body_cut_short_about;
    cross_site;
    cross_site_about;
    denied;
    denied_about;
    step_up_unmet;
    step_up_unmet_about;
    step_up_impossible;
    step_up_impossible_about;
    too_large_to_confirm;
    too_large_to_confirm_about;
    too_many_wait;
    too_many_wait_about;
    fact_too_long;
    fact_too_long_about(name, count);
    no_errand;
    no_errand_about;
    too_many_challenges;
    try_in_a_minute;
    over;
    over_about;
    not_yours;
    not_yours_about;
    unproved;
    unproved_about;
    other_request;
    other_request_about;
    no_tries_left;
    no_tries_left_about;
    needs_browser;
    needs_browser_about;
    enough_codes;
    enough_codes_about;
    not_sent;
    not_sent_about;
    too_many_attempts;
    too_many_attempts_about(seconds);
    busy;
    busy_about;
    limited;
    limited_about(seconds);
    store_unavailable;
    store_unavailable_about;
    no_such_factor;
    no_such_factor_about;
    not_here_about;
    token_needed;
    token_needed_about;
    token_not_accepted;
    idp_unavailable;
    idp_unavailable_about;
    idp_unmet;
    idp_unmet_about;
    other_user;
    other_user_about;
    login_refused;
    login_refused_about;
    not_begun_here;
    not_begun_here_about;
    api_key_stale;
    api_key_stale_about;
    api_key_replace;
    api_key_replace_about;
    api_key_invalid;
    api_key_invalid_about;
    token_unavailable;
    token_unavailable_about;
    token_invalid;
    token_invalid_about(reason);
    token_scope;
    token_scope_about(scope);
    token_impossible;
    token_impossible_about;
}
