using Pesto.Bench;
using Pesto.Bench.Compare;
using Pesto.Bench.Micro;
using Pesto.Bench.Traffic;

try
{
    return args switch
    {
        ["micro", ..] => MicroVerb.Run(args),
        ["compare", ..] => CompareVerb.Run(args),
        ["syscalls", ..] => SystemCalls.Run(args),
        ["server", .. var rest] => TrafficVerbs.Server(rest),
        ["load", .. var rest] => TrafficVerbs.Load(rest),
        ["connect-loop", .. var rest] => TrafficVerbs.ConnectLoop(rest),
        ["-h" or "--help" or "help", ..] => Say(Console.Out, 0),
        _ => Say(Console.Error, 2),
    };
}
catch (Exception e) when (e is ArgumentException or FormatException or InvalidOperationException or Pesto.Linux.LinuxException)
{
    Console.Error.WriteLine(e.Message);
    return 2;
}

static int Say(TextWriter to, int status)
{
    to.Write(Help.Text);
    return status;
}
