using Pesto.Protocol;

namespace Pesto.Client;

/// <summary>The server hung up before it was told to keep anything: the tables are as before, and one may try again.</summary>
sealed class DroppedException(string message) : ProtocolException(message);
