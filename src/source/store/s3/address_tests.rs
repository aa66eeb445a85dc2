use super::*;

fn url(bucket: &str, region: &str, key: &str, env: &[(&str, &str)]) -> String {
    let options = RemoteOptions::with_variables(env);
    let address = Address::new(bucket, &options, &Profiles::default()).unwrap();
    address.url(region, key).unwrap().to_string()
}

#[test]
fn at_aws_the_bucket_is_in_the_host() {
    for (bucket, region, expected) in [
        ("models", "eu-west-1", "https://models.s3.eu-west-1.amazonaws.com/a/b"),
        ("models", "cn-north-1", "https://models.s3.cn-north-1.amazonaws.com.cn/a/b"),
        ("my.models", "us-east-1", "https://s3.us-east-1.amazonaws.com/my.models/a/b"),
        ("Models_1", "us-east-1", "https://s3.us-east-1.amazonaws.com/Models_1/a/b"),
    ] {
        assert_eq!(url(bucket, region, "a/b", &[]), expected);
    }
    let path = &[("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", "0")];
    assert_eq!(url("b1", "eu-west-1", "k", path), "https://s3.eu-west-1.amazonaws.com/b1/k");
}

#[test]
fn compatible_stores_have_path_style_addresses_by_default() {
    let endpoint = ("AWS_ENDPOINT_URL", "http://minio:9000/");
    assert_eq!(url("b1", "r", "k", &[endpoint]), "http://minio:9000/b1/k");
    let virtual_host = ("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", "1");
    assert_eq!(url("b1", "r", "k", &[endpoint, virtual_host]), "http://b1.minio:9000/k");
    assert_eq!(url("b.1", "r", "k", &[endpoint, virtual_host]), "http://minio:9000/b.1/k");
    let below = ("AWS_ENDPOINT_URL", "https://host/s3/");
    assert_eq!(url("b1", "r", "k", &[below]), "https://host/s3/b1/k");
}

#[test]
fn endpoints_have_an_order_of_precedence() {
    let all = [
        ("RUNAI_STREAMER_S3_ENDPOINT", "http://one"),
        ("AWS_ENDPOINT_URL_S3", "http://two"),
        ("AWS_ENDPOINT_URL", "http://three"),
    ];
    let profiles = Profiles::of_text("default", "[default]\nendpoint_url = http://four", "");
    let base = |options: &RemoteOptions| {
        Address::new("b1", options, &profiles).unwrap().url("eu-west-1", "").unwrap().to_string()
    };
    let mut first = RemoteOptions::with_variables(&all);
    assert_eq!(base(&first), "http://one/b1/");
    first.endpoint = Some("http://zero".to_owned());
    assert_eq!(base(&first), "http://zero/b1/");
    assert_eq!(base(&RemoteOptions::with_variables(&all[1..])), "http://two/b1/");
    assert_eq!(base(&RemoteOptions::with_variables(&all[2..])), "http://three/b1/");
    assert_eq!(base(&RemoteOptions::with_variables(&[])), "http://four/b1/");
    let ignore = [all[2], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
    assert_eq!(
        base(&RemoteOptions::with_variables(&ignore)),
        "https://b1.s3.eu-west-1.amazonaws.com/"
    );
}

#[test]
fn the_profile_sets_the_addressing_style_unless_a_variable_does() {
    let with = |style: &str, env: &[(&str, &str)]| {
        let config = format!("[default]\ns3 =\n  addressing_style = {style}");
        let profiles = Profiles::of_text("default", &config, "");
        let address = Address::new("b1", &RemoteOptions::with_variables(env), &profiles).unwrap();
        address.url("eu-west-1", "k").unwrap().to_string()
    };
    let endpoint = ("AWS_ENDPOINT_URL", "http://h");
    let variable = ("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", "1");
    assert_eq!(with("path", &[]), "https://s3.eu-west-1.amazonaws.com/b1/k");
    assert_eq!(with("path", &[variable]), "https://b1.s3.eu-west-1.amazonaws.com/k");
    assert_eq!(with("virtual", &[endpoint]), "http://b1.h/k");
    assert_eq!(with("auto", &[endpoint]), "http://h/b1/k");
    assert_eq!(with("auto", &[]), "https://b1.s3.eu-west-1.amazonaws.com/k");
}

/// An ARN in the place of the bucket was refused as a location with credentials in it.
#[test]
fn access_points_have_hosts_and_regions_of_their_own() {
    let arn = "arn:aws:s3:us-west-2:123456789012:accesspoint/models";
    let env = [("AWS_REGION", "eu-west-1")];
    assert_eq!(
        url(arn, "us-west-2", "a/b", &env),
        "https://models-123456789012.s3-accesspoint.us-west-2.amazonaws.com/a/b"
    );
    let elsewhere = [("AWS_ENDPOINT_URL", "https://vpce.example.com")];
    assert_eq!(
        url(arn, "us-west-2", "k", &elsewhere),
        "https://models-123456789012.vpce.example.com/k"
    );
    let options = RemoteOptions::with_variables(&env);
    let address = Address::new(arn, &options, &Profiles::default()).unwrap();
    assert_eq!(address.region(), Some("us-west-2"));
    assert_eq!(
        url("models-x7-s3alias", "us-west-2", "k", &[]),
        "https://models-x7-s3alias.s3.us-west-2.amazonaws.com/k"
    );
    for alias in ["abc.mrap", "abc--op-s3"] {
        let refused = Address::new(alias, &options, &Profiles::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    }
}

#[test]
fn keys_are_encoded_once() {
    for (key, expected) in [
        ("a b+c", "a%20b%2Bc"),
        ("a%20b", "a%2520b"),
        ("d/./../x", "d/./../x"),
        ("/x//y/", "/x//y/"),
        ("\u{e9}?#&=~*'()", "%C3%A9%3F%23%26%3D~%2A%27%28%29"),
    ] {
        let url = url("b1", "r", key, &[("AWS_ENDPOINT_URL", "http://h")]);
        assert_eq!(url, format!("http://h/b1/{expected}"));
    }
    let address =
        Address::new("b1", &RemoteOptions::with_variables(&[]), &Profiles::default()).unwrap();
    let query = address.query_url("us-east-1", &[("delimiter", "/"), ("prefix", "a b/")]).unwrap();
    assert_eq!(query.query(), Some("delimiter=%2F&prefix=a%20b%2F"));
    let long = "x".repeat(1 << 17);
    assert_eq!(address.url("r", &long).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn invalid_buckets_and_endpoints_are_rejected_without_repeating_them() {
    for bucket in ["key:s3cret@bucket", "-x", "a/b", "a b", "arn:aws:s3", "\u{e9}"] {
        let error = Address::new(bucket, &RemoteOptions::with_variables(&[]), &Profiles::default())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
    let express = Address::new(
        "b1--use1-az4--x-s3",
        &RemoteOptions::with_variables(&[]),
        &Profiles::default(),
    );
    assert_eq!(express.unwrap_err().kind(), ErrorKind::Unsupported);
    for url in ["minio:9000", "ftp://h", "http://u:s3cret@h", "http://h/?s3cret", "http://", "x y"]
    {
        let options = RemoteOptions::with_variables(&[("AWS_ENDPOINT_URL", url)]);
        let error = Address::new("b1", &options, &Profiles::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        assert!(error.to_string().starts_with("AWS_ENDPOINT_URL is not a URL"), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn regions_have_lower_case_letters_digits_and_hyphens() {
    assert!(is_region("us-gov-west-1") && is_region("auto"));
    for wrong in ["", "evil.com/", "US", "a.b", "a@b"] {
        assert!(!is_region(wrong), "{wrong}");
    }
}
