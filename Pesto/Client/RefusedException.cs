namespace Pesto.Client;

/// <summary>The server does not take the update, and its tables are as before.</summary>
sealed class RefusedException(string message) : Exception(message);
