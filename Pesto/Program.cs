// "pesto serve" with something behind it is the forwarder; "pesto serve" alone is the client, with a socket of that name.
return args.Length > 1 && args[0] == "serve" ? Pesto.Forwarder.Serve.Run(args[1..]) : Pesto.Client.Entry.Run(args);
