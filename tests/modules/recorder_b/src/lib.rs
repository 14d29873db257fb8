//! The recorder with the flag for `PROC_POSTCHILDINIT`.

struct Name;

impl recorder::Name for Name {
    const NAME: &'static str = "recorder_b";
}

type Recorder = recorder::Recorder<Name>;

module_api::export_module! {
    Recorder,
    name: "recorder_b",
    post_child_init: true,
    udp: {
        "serve" => Recorder::serve,
        "echo" => Recorder::echo,
    },
}
