use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;

/// A mail server that offers no TLS, and takes everything. Returns its port, and what it was told until the end.
async fn plain_server() -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        writer.write_all(b"220 mail.example\r\n").await.unwrap();
        let (mut told, mut in_data) = (String::new(), false);
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match line.as_str() {
                "." => "250 taken\r\n",
                _ if in_data => "",
                "DATA" => "354 go on\r\n",
                "QUIT" => "221 bye\r\n",
                _ => "250 mail.example\r\n",
            };
            in_data = line == "DATA" || (in_data && line != ".");
            told.push_str(&line);
            told.push('\n');
            if writer.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
        told
    };
    (port, tokio::spawn(serve))
}

fn config(port: u16, protection: MailProtection) -> MailConfig {
    MailConfig {
        host: "127.0.0.1".to_owned(),
        port,
        protection,
        login: None,
        ca: None,
        from: "Shop <no-reply@shop.example>".to_owned(),
    }
}

#[tokio::test]
async fn a_mail_is_handed_over_with_its_addresses_and_text() {
    let (port, told) = plain_server().await;
    let mailer = Mailer::new(&config(port, MailProtection::None)).unwrap();
    mailer.send("alice@shop.example", "Your code", "ABCD-EFGH\n".to_owned()).await.unwrap();
    drop(mailer);
    let told = told.await.unwrap();
    for part in ["RCPT TO:<alice@shop.example>", "MAIL FROM:<no-reply@shop.example>", "ABCD-EFGH", "Subject: Your code"]
    {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[tokio::test]
async fn a_server_that_offers_no_tls_is_told_nothing() {
    let (port, told) = plain_server().await;
    let mailer = Mailer::new(&config(port, MailProtection::StartTls)).unwrap();
    mailer.send("alice@shop.example", "Your code", "ABCD-EFGH\n".to_owned()).await.unwrap_err();
    drop(mailer);
    let told = told.await.unwrap();
    assert!(!told.contains("alice") && !told.contains("ABCD"), "{told}");
}

#[tokio::test]
async fn an_address_cannot_bring_headers_of_its_own() {
    let mailer = Mailer::new(&config(1, MailProtection::None)).unwrap();
    for address in ["alice@shop.example\r\nBcc: mallory@evil.example", "no address", "a@b, c@d", ""] {
        let error = mailer.send(address, "Your code", String::new()).await.unwrap_err();
        assert!(error.to_string().contains("no e-mail address"), "{address:?}: {error:#}");
    }
}
